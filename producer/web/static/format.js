// Numbers and times for people.

const numbers = new Intl.NumberFormat("en");

export const count = (number) => numbers.format(number);
export const percent = (score) => `${(score * 100).toFixed(score < 0.0995 ? 1 : 0)} %`;
export const plural = (number, one, many = `${one}s`) => `${count(number)} ${number === 1 ? one : many}`;

export function duration(seconds) {
  const whole = Math.max(0, Math.round(seconds));
  const [hours, minutes, rest] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  if (hours) return `${hours} h ${minutes} min`;
  return minutes ? `${minutes} min ${rest} s` : `${rest} s`;
}

export function rate(imagesPerSecond) {
  if (imagesPerSecond >= 1e6) return `${count(Math.round(imagesPerSecond / 1e5) / 10)} M/s`;
  return `${count(imagesPerSecond >= 10 ? Math.round(imagesPerSecond) : Math.round(imagesPerSecond * 10) / 10)}/s`;
}

export function bytes(size) {
  const units = ["B", "KB", "MB", "GB", "TB"];
  let at = 0;
  for (; size >= 1000 && at < units.length - 1; at += 1) size /= 1000;
  return `${size < 10 && at ? size.toFixed(1) : Math.round(size)} ${units[at]}`;
}

export function ago(time) {
  const seconds = (Date.now() - Date.parse(time)) / 1000;
  if (seconds < 60) return "just now";
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ago`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)} h ago`;
  return new Date(time).toLocaleDateString("en", { day: "numeric", month: "short" });
}
