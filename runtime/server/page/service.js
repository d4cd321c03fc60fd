// What the page asks of the server. Every refusal comes as a sentence.

async function post(path, image, mask, signal) {
  const form = new FormData();
  form.append("image", image, "image");
  form.append("mask", mask, "mask.png");
  if (path === "/inpaint") form.append("format", "png");
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

export const complete = async (image, mask, signal) => (await post("/inpaint", image, mask, signal)).blob();
export const stages = async (image, mask, signal) => (await post("/stages", image, mask, signal)).json();
