"""Where images come from. A source yields its images lazily, however many there are."""

from producer.sources.archives import Archive
from producer.sources.by_value import By, ByValue
from producer.sources.chain import Chain, Pictures, Urls, located
from producer.sources.contract import Located, Named, Picture, Source, Upload
from producer.sources.files import Files
from producer.sources.manifest import Manifest
from producer.sources.objects import Objects
from producer.sources.opening import open_source

__all__ = [
    "Archive",
    "By",
    "ByValue",
    "Chain",
    "Files",
    "Located",
    "Manifest",
    "Named",
    "Objects",
    "Picture",
    "Pictures",
    "Source",
    "Upload",
    "Urls",
    "located",
    "open_source",
]
