// Pictures of this visit, by name, so that a job's results can be shown beside them. They never leave the page again.

/** Most pictures that are remembered. */
const KEPT = 2000;

const pictures = new Map();

export function remember(entries) {
  for (const { file, name } of entries) {
    if (pictures.size >= KEPT) return;
    if (file.type.startsWith("image/") && !pictures.has(name)) pictures.set(name, file);
  }
}

/** An address of a picture that this visit has uploaded; null for any other. */
export function pictureOf(name) {
  const known = pictures.get(name);
  if (!known) return null;
  if (typeof known === "string") return known;
  const url = URL.createObjectURL(known);
  pictures.set(name, url);
  return url;
}
