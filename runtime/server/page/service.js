// What the page asks of the server. Every refusal comes as a sentence.

async function post(path, fields, signal) {
  const form = new FormData();
  for (const [name, value] of Object.entries(fields)) form.append(name, ...[value].flat());
  let reply;
  try {
    reply = await fetch(path, { method: "POST", body: form, signal });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("The server cannot be reached. Is it still running?");
  }
  if (reply.ok) return reply;
  const text = await reply.text();
  try {
    throw new Error(JSON.parse(text).error);
  } catch (error) {
    if (error instanceof SyntaxError) throw new Error(`The server answered with ${reply.status}.`);
    throw error;
  }
}

const files = (image, mask) => ({ image: [image, "image"], mask: [mask, "mask.png"] });

export const complete = async (image, mask, signal) => (await post("/inpaint", { ...files(image, mask), format: "png" }, signal)).blob();
export const stages = async (image, mask, signal) => (await post("/stages", files(image, mask), signal)).json();

// What covers the face, found by the server's networks: the hole as a picture, and what is known of it.
export async function find(image, signal) {
  const reply = await post("/mask", { image: [image, "image"], mask_from: "occlusion" }, signal);
  return { mask: await reply.blob(), note: JSON.parse(reply.headers.get("Showface-Mask")) };
}

export async function findsOcclusions() {
  const reply = await fetch("/health");
  return (await reply.json()).finds_occlusions === true;
}
