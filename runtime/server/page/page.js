import { Painter } from "./painter.js";
import { complete, find, findsOcclusions, stages } from "./service.js";

const $ = (id) => document.getElementById(id);
const state = { picture: null, stem: "face", source: null, side: 0, result: null, running: null, crops: 0 };
const CAPTIONS = {
  coarse: "a first, smooth completion",
  parser: "which part of the face each pixel is",
  memory: "style by kind, before it is refined",
  mrem: "guidance: the three main components of what steers the refiner",
  refiner: "the completed face, at the size the networks work in",
};
const painter = new Painter($("mask"), $("ring"), refresh);

function say(text) {
  $("status").textContent = text;
  $("error").hidden = true;
}

function complain(error) {
  if (error.name === "AbortError") return;
  const text = error.message;
  $("status").textContent = "";
  $("error").textContent = text.charAt(0).toUpperCase() + text.slice(1) + (/[.?!]$/.test(text) ? "" : ".");
  $("error").hidden = false;
}

function refresh() {
  const ready = state.picture !== null;
  $("painting").disabled = !ready || state.result !== null || state.running !== null;
  $("completing").disabled = !ready || state.running !== null;
  $("undo").disabled = $("clear").disabled = $("save-mask").disabled = painter.empty;
  $("complete").disabled = painter.empty;
  $("complete").hidden = state.result !== null;
  $("show-stages").disabled = painter.empty;
  for (const button of document.querySelectorAll(".finished")) button.hidden = state.result === null;
  $("compare").hidden = $("after").hidden = $("line").hidden = state.result === null;
  $("mask").hidden = !ready || state.result !== null;
  $("mask").tabIndex = ready ? 0 : -1;
}

// A file as an <img>, which shows it upright as its EXIF block says.
async function decode(blob, name) {
  const image = new Image();
  image.src = URL.createObjectURL(blob);
  try {
    await image.decode();
  } catch {
    URL.revokeObjectURL(image.src);
    throw new Error(`${name} cannot be shown by this browser; choose a JPEG, PNG or WebP file.`);
  }
  return image;
}

async function open(blob, name) {
  state.running?.abort();
  const image = await decode(blob, name);
  state.crops++; // one that is still being cut is of another photograph
  state.stem = name.replace(/\.[^.]*$/, "") || "face";
  state.source = image;
  const square = image.naturalWidth === image.naturalHeight;
  $("crop").hidden = square;
  if (square) return show(blob, image.naturalWidth);
  for (const [id, value] of [["crop-size", 100], ["crop-x", 50], ["crop-y", 50]]) $(id).value = value;
  return crop();
}

// Until the piece is cut there is nothing to paint on; of several that are being cut the last counts.
async function crop() {
  const turn = ++state.crops;
  state.picture = null;
  refresh();
  const { naturalWidth: width, naturalHeight: height } = state.source;
  const side = Math.max(1, Math.round((Math.min(width, height) * $("crop-size").value) / 100));
  const canvas = new OffscreenCanvas(side, side);
  const x = Math.round(((width - side) * $("crop-x").value) / 100);
  const y = Math.round(((height - side) * $("crop-y").value) / 100);
  canvas.getContext("2d").drawImage(state.source, x, y, side, side, 0, 0, side, side);
  const piece = await canvas.convertToBlob({ type: "image/png" });
  if (turn === state.crops) show(piece, side);
}

function show(blob, side) {
  if ($("before").src) URL.revokeObjectURL($("before").src);
  $("before").src = URL.createObjectURL(blob);
  $("before").alt = "The photograph";
  $("before").hidden = false;
  $("hint").hidden = true;
  $("stage").className = "";
  Object.assign(state, { picture: blob, side, result: null });
  $("stages").hidden = true;
  painter.start(side);
  say(`${side}×${side} pixels. Paint over what is to be completed.`);
}

async function run(text, work) {
  const controller = new AbortController();
  state.running = controller;
  say(text);
  refresh();
  try {
    const started = performance.now();
    const said = await work(controller.signal);
    if (!controller.signal.aborted) say(said ?? `Done in ${((performance.now() - started) / 1000).toFixed(2)} s.`);
  } catch (error) {
    complain(error);
  } finally {
    if (state.running === controller) state.running = null;
    refresh();
  }
}

function divide() {
  const percent = $("divider").value;
  $("after").style.clipPath = `inset(0 0 0 ${percent}%)`;
  $("line").style.left = `${percent}%`;
}

function save(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

async function painted() {
  const mask = await painter.mask();
  if (mask === null) throw new Error("Nothing is painted: paint over what is to be completed.");
  return mask;
}

async function findHole() {
  await run("Looking for what covers the face …", async (signal) => {
    const { mask, note } = await find(state.picture, signal);
    if (note.too_large) return `Nothing is marked: ${note.doubts[0]}. Paint the hole by hand.`;
    if (note.parts === 0) return "Nothing was found that covers the face. Paint the hole by hand.";
    const image = await decode(mask, "mask");
    painter.load(image);
    URL.revokeObjectURL(image.src);
    const look = note.doubts.length ? ` Look at it closely: ${note.doubts.join("; ")}.` : "";
    return `Found what covers ${Math.max(1, Math.round(note.area * 100))} % of the picture.${look} Complete it, or paint on.`;
  });
}

async function completeFace() {
  await run("Completing the face …", async (signal) => {
    const blob = await complete(state.picture, await painted(), signal);
    if ($("after").src) URL.revokeObjectURL($("after").src);
    $("after").src = URL.createObjectURL(blob);
    await $("after").decode();
    state.result = blob;
    painter.lift();
    $("divider").value = 0;
    divide();
  });
  if (!state.result) return;
  $("divider").focus({ preventScroll: true });
  $("stage").scrollIntoView({ block: "nearest" });
}

async function showStages() {
  await run("Asking for the stages …", async (signal) => {
    const reply = await stages(state.picture, await painted(), signal);
    $("figures").replaceChildren(...reply.stages.map(({ stage, description, picture }) => {
      const figure = document.createElement("figure");
      const image = Object.assign(new Image(), { src: picture, alt: `Output of the stage ${stage}` });
      const caption = document.createElement("figcaption");
      const name = document.createElement("b");
      name.textContent = stage;
      caption.append(name, CAPTIONS[stage] ?? description);
      figure.append(image, caption);
      return figure;
    }));
    $("legend").replaceChildren(...reply.categories.map(({ name, color }) => {
      const item = document.createElement("li");
      const patch = document.createElement("i");
      patch.style.background = color;
      item.append(patch, name.replace("_", " "));
      return item;
    }));
    $("stages").hidden = false;
  });
}

const first = (list) => [...(list ?? [])].find((file) => file);
const pick = (input, then) => input.addEventListener("change", () => {
  const file = first(input.files);
  input.value = "";
  if (file) then(file).catch(complain);
});

pick($("choose"), (file) => open(file, file.name));
pick($("load-mask"), async (file) => {
  const image = await decode(file, file.name);
  const { naturalWidth: width, naturalHeight: height } = image;
  if (Math.abs(width / height - 1) > 0.01) throw new Error(`A mask of ${width}×${height} does not fit a square picture.`);
  painter.load(image);
  URL.revokeObjectURL(image.src);
  say("The mask is loaded; you can paint on it.");
});
for (const button of document.querySelectorAll(".example")) {
  button.addEventListener("click", async () => {
    const { example: name, covered } = button.dataset;
    try {
      await open(await (await fetch(`/examples/${name}.jpg`)).blob(), `example-${name}.jpg`);
      if (covered !== undefined) {
        const what = $("finding").hidden ? "Paint over what covers it." : "Find what covers it, or paint over it.";
        return say(`An example whose face is covered. ${what}`);
      }
      painter.load(await decode(await (await fetch(`/examples/${name}.png`)).blob(), "mask"));
      say("An example with its hole. Complete it, or paint another.");
    } catch (error) {
      complain(error);
    }
  });
}
for (const id of ["crop-size", "crop-x", "crop-y"]) $(id).addEventListener("input", () => crop().catch(complain));
for (const tool of document.querySelectorAll("[name=tool]")) {
  tool.addEventListener("change", () => { painter.erasing = tool.value === "eraser"; });
}
$("size").addEventListener("input", () => { painter.percent = Number($("size").value); });
$("undo").addEventListener("click", () => painter.undo());
$("clear").addEventListener("click", () => painter.clear());
$("save-mask").addEventListener("click", async () => {
  const mask = await painter.mask();
  if (mask) save(mask, `${state.stem}.png`); // the photograph's stem: how --masks finds it
});
$("find").addEventListener("click", findHole);
$("complete").addEventListener("click", completeFace);
$("show-stages").addEventListener("click", showStages);
$("divider").addEventListener("input", divide);
$("save").addEventListener("click", () => save(state.result, `${state.stem}-completed.png`));
$("go-on").addEventListener("click", () => { $("crop").hidden = true; show(state.result, state.side); $("mask").focus(); });
$("back").addEventListener("click", () => { state.result = null; refresh(); $("mask").focus(); say("Change the hole, and complete again."); });

document.addEventListener("keydown", (event) => {
  if (state.picture === null || state.result !== null || state.running !== null) return;
  if (event.key.toLowerCase() === "z" && (event.ctrlKey || event.metaKey)) painter.undo();
  else if (document.activeElement !== $("mask")) return;
  else if (event.key === "+" || event.key === "-") $("size").value = Number($("size").value) + (event.key === "+" ? 1 : -1);
  else if (event.key === "e") document.querySelector(`[name=tool][value=${painter.erasing ? "brush" : "eraser"}]`).click();
  else return;
  painter.percent = Number($("size").value);
  event.preventDefault();
});

const stage = $("stage");
for (const name of ["dragover", "drop"]) document.addEventListener(name, (event) => event.preventDefault());
stage.addEventListener("dragover", () => stage.classList.add("drop"));
stage.addEventListener("dragleave", () => stage.classList.remove("drop"));
stage.addEventListener("drop", (event) => {
  stage.classList.remove("drop");
  const file = first(event.dataTransfer.files);
  if (file) open(file, file.name).catch(complain);
});
findsOcclusions().then((finds) => { $("finding").hidden = !finds; }, () => {});
refresh();
