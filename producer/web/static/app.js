// Where the page begins: what is dropped becomes cards or a job.

import { onTokenNeeded } from "./api.js";
import { clearCards, labelAll } from "./cards.js";
import { byId, complain } from "./dom.js";
import { watchFleet } from "./fleet.js";
import { plural } from "./format.js";
import { fromClipboard, fromDrop, fromInput, isArchive, usable } from "./intake.js";
import { prepareOpened } from "./job.js";
import { submit, watchJobs } from "./jobs.js";
import { remember } from "./local.js";

/** More pictures than this become a job. */
const AT_ONCE = 24;

byId("at-once").textContent = String(AT_ONCE);

function take(found) {
  const entries = usable(found);
  if (!entries.length) {
    if (found.length) complain("None of these files is a picture or an archive of pictures.");
    return;
  }
  const options = { model: byId("model").value, topK: Number(byId("top-k").value) };
  const archives = entries.filter(isArchive);
  const pictures = entries.filter((entry) => !isArchive(entry));
  for (const archive of archives) submit([archive], { ...options, name: archive.name });
  if (!pictures.length) return;
  remember(pictures);
  if (pictures.length <= AT_ONCE) labelAll(pictures, options);
  else submit(pictures, { ...options, name: nameOf(pictures) });
}

/** The folder that all of them came from, or how many they are. */
function nameOf(pictures) {
  const [folder] = pictures[0].name.split("/");
  const together = pictures[0].name.includes("/") && pictures.every(({ name }) => name.startsWith(`${folder}/`));
  return together ? folder : plural(pictures.length, "picture");
}

for (const [button, input] of [["choose-files", "files"], ["choose-folder", "folder"]]) {
  byId(button).addEventListener("click", () => byId(input).click());
  byId(input).addEventListener("change", (event) => {
    take(fromInput(event.target.files));
    event.target.value = "";
  });
}

const drop = byId("drop");
for (const name of ["dragenter", "dragover"]) {
  document.addEventListener(name, (event) => {
    event.preventDefault();
    drop.classList.add("over");
  });
}
document.addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) drop.classList.remove("over");
});
document.addEventListener("drop", async (event) => {
  event.preventDefault();
  drop.classList.remove("over");
  take(await fromDrop(event.dataTransfer));
});
document.addEventListener("paste", (event) => take(fromClipboard(event.clipboardData)));
byId("clear-cards").addEventListener("click", () => {
  clearCards();
  byId("choose-files").focus();
});

// A token is asked for once, however many calls found out that one is needed.
let asking = null;
onTokenNeeded((wrong) => {
  asking ||= new Promise((resolve) => {
    const dialog = byId("token-dialog");
    byId("token-wrong").textContent = wrong ? "This token is not valid." : "";
    dialog.addEventListener("cancel", (event) => event.preventDefault());
    byId("token-form").addEventListener("submit", () => {
      resolve(byId("token").value.trim());
      byId("token").value = "";
      asking = null;
    }, { once: true });
    if (!dialog.open) dialog.showModal();
  });
  return asking;
});

prepareOpened();
watchFleet();
watchJobs();
