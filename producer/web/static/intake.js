// From what is dropped, chosen or pasted to a list of files with names.

const PICTURE = /\.(jpe?g|jpe|jfif|png|gif|webp|bmp|tiff?)$/i;
const ARCHIVE = /\.(zip|tar|tgz|tar\.gz|tar\.bz2|tar\.xz)$/i;

export const isArchive = (entry) => ARCHIVE.test(entry.name);
const isPicture = (file) => file.type.startsWith("image/") || PICTURE.test(file.name);

const named = (file, name) => ({ file, name: name || file.name || "pasted.png" });

/** Keep what can be a picture or an archive, each under a name of its own. */
export function usable(entries) {
  const seen = new Map();
  const kept = entries.filter(({ file }) => isPicture(file) || ARCHIVE.test(file.name));
  return kept.map(({ file, name }) => {
    const before = seen.get(name) || 0;
    seen.set(name, before + 1);
    if (!before) return { file, name };
    const dot = name.lastIndexOf(".");
    return { file, name: dot > 0 ? `${name.slice(0, dot)} (${before + 1})${name.slice(dot)}` : `${name} (${before + 1})` };
  });
}

export const fromInput = (files) => Array.from(files, (file) => named(file, file.webkitRelativePath));

export function fromClipboard(data) {
  return Array.from(data.items).filter((item) => item.kind === "file").map((item) => named(item.getAsFile()));
}

/** Files and folders that were dropped; folders are walked. */
export async function fromDrop(data) {
  const entries = Array.from(data.items, (item) => (item.webkitGetAsEntry ? item.webkitGetAsEntry() : null));
  if (!entries.some(Boolean)) return Array.from(data.files, (file) => named(file));
  const found = [];
  for (const entry of entries) if (entry) await walk(entry, found);
  return found;
}

async function walk(entry, found) {
  if (entry.isFile) {
    const file = await new Promise((resolve, reject) => entry.file(resolve, reject));
    found.push(named(file, entry.fullPath.replace(/^\//, "")));
    return;
  }
  const reader = entry.createReader();
  for (;;) {
    const batch = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    if (!batch.length) return;
    for (const child of batch) if (!child.name.startsWith(".")) await walk(child, found);
  }
}
