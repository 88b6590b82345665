import assert from "node:assert/strict";
import { CONSOLE, wide, control, step, run } from "../lib.mjs";

const { page } = run;

// hold keeps requests for what matches until it is let go.
async function hold(url) {
  let release;
  const held = new Promise((r) => (release = r));
  await page.route(url, async (route) => {
    await held;
    await route.continue().catch(() => {});
  });
  return async () => {
    release();
    await page.unroute(url);
  };
}

await step("a slow server: a search greys old rows, an old answer does not replace a new one", async () => {
  await control("/fleet", { n: 300, name: "tardy" });
  await page.setViewportSize(wide);
  await page.goto(CONSOLE + "/devices?q=tardy");
  await page.locator("#live-state[data-state=on]").waitFor();
  const rows = page.locator("#rows > tr");
  const top = () => rows.first().evaluate((el) => el.getBoundingClientRect().top);
  const [before, n] = [await top(), await rows.count()];
  const letGo = await hold(/devices\?.*q=tardy-000(&|$)/);
  const asked = page.waitForRequest(/q=tardy-000(&|$)/);
  await page.locator("#q").fill("tardy-000");
  await asked;
  await page.locator("#devices[data-waiting]").waitFor();
  assert.equal(await rows.count(), n);
  assert.equal(await top(), before, "the list jumps while it waits");
  await page.locator("#q").fill("tardy-0007");
  await page.waitForFunction(() => document.querySelectorAll("#rows > tr").length === 1);
  await page.locator("#devices:not([data-waiting])").waitFor();
  await letGo();
  // Another request goes there and back: whatever was held has had its time.
  await page.request.get(CONSOLE + "/devices?q=tardy-000");
  assert.equal(await rows.count(), 1);
  assert.equal(await page.inputValue("#q"), "tardy-0007");
});

await step("a slow server: the palette shows a skeleton, and Enter waits for its own answer", async () => {
  await page.goto(CONSOLE + "/account");
  const letGo = await hold(/palette\?q=tardy-0009$/);
  await page.locator("#live-state[data-state=on]").waitFor();
  await page.keyboard.press("Control+k");
  await page.locator("#palette [role=option]").first().waitFor();
  // An earlier answer is shown after the next question has been asked: it does not pass for
  // the answer to that.
  const asked = page.waitForRequest(/q=tardy-0009$/);
  await page.keyboard.type("tardy-0009");
  await asked;
  await page.keyboard.press("Enter");
  await page.evaluate(() => document.dispatchEvent(new CustomEvent("htmx:after:swap", { detail: { ctx: { sourceElement: document.getElementById("palette-q") } } })));
  assert.ok(await page.evaluate(() => document.getElementById("palette").open && "waiting" in document.getElementById("palette-answer").dataset));
  assert.equal(new URL(page.url()).pathname, "/account");
  await letGo();
  await page.getByRole("heading", { name: "tardy-0009" }).waitFor();
  await page.locator("#live-state[data-state=on]").waitFor(); // with its script
  const open = await hold(/palette\?q=$/);
  await page.keyboard.press("Control+k");
  await page.locator("#palette .skeleton").waitFor();
  await open();
  await page.locator("#palette [role=option]").first().waitFor();
  await page.keyboard.press("Escape");
});

await step("a slow server: the palette is open before htmx is there", async () => {
  const letGo = await hold(/\/htmx\.js/);
  await page.goto(CONSOLE + "/account", { waitUntil: "commit" });
  await page.waitForFunction(() => document.querySelector(".find kbd")?.hidden === false);
  await page.keyboard.press("Control+k");
  await page.keyboard.type("tardy-0011");
  await page.keyboard.press("Enter");
  await letGo();
  await page.getByRole("heading", { name: "tardy-0011" }).waitFor();
});

await step("a server that hangs while one scrolls: nothing jumps, and the rows come", async () => {
  await page.goto(CONSOLE + "/devices?q=tardy");
  await page.locator("#live-state[data-state=on]").waitFor();
  const height = () => page.evaluate(() => document.documentElement.scrollHeight);
  const before = await height();
  await control("/freeze");
  let at;
  try {
    await page.evaluate(() => scrollTo(0, 8000));
    await page.evaluate(() => new Promise((r) => requestAnimationFrame(() => requestAnimationFrame(r))));
    at = await page.evaluate(() => scrollY);
    assert.ok(at > 5000);
    assert.equal(await height(), before, "the list has another height");
  } finally {
    await control("/thaw");
  }
  await page.waitForFunction(() => {
    const row = document.elementFromPoint(innerWidth / 2, innerHeight / 2)?.closest("#rows > tr");
    return Number(row?.getAttribute("aria-rowindex")) > 150;
  });
  assert.equal(await page.evaluate(() => scrollY), at);
  assert.equal(await height(), before);
});
