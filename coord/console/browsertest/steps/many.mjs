import assert from "node:assert/strict";
import { CONSOLE, browser, wide, control, look, step, run } from "../lib.mjs";

const { page } = run;

await step("5,000 devices", async () => {
  await control("/many");
  await page.setViewportSize(wide);
  const start = Date.now();
  await page.goto(CONSOLE + "/devices?q=unit");
  await page.locator("#rows").waitFor();
  assert.match(await page.locator(".result").textContent(), /^5,000 of 5,\d\d\d devices/);
  assert.ok(Date.now() - start < 3000, "the list took 3 s");
  await page.locator("#live-state[data-state=on]").waitFor();
});

await step("5,000 devices: rows come as one scrolls, and go", async () => {
  // Frames while it scrolls through everything, in the browser's own time.
  const scroll = await page.evaluate(async () => {
    const frames = [];
    let last = performance.now();
    let most = 0;
    const end = document.documentElement.scrollHeight - innerHeight;
    for (let at = 0; at < end; at += 400) {
      scrollTo(0, at);
      await new Promise(requestAnimationFrame);
      const now = performance.now();
      frames.push(now - last);
      last = now;
      most = Math.max(most, document.querySelectorAll("#rows > tr").length);
    }
    scrollTo(0, end);
    frames.sort((a, b) => a - b);
    return { height: end, frames: frames.length, median: frames[frames.length >> 1], p99: frames[Math.floor(frames.length * 0.99)], longest: frames.at(-1), over50: frames.filter((f) => f > 50).length, most };
  });
  console.log(`scrolled ${scroll.height} px in ${scroll.frames} frames: median ${scroll.median.toFixed(1)} ms, 99 % ${scroll.p99.toFixed(1)} ms, longest ${scroll.longest.toFixed(1)} ms, ${scroll.over50} over 50 ms; at most ${scroll.most} rows`);
  assert.ok(scroll.most <= 300, `${scroll.most} rows at once`);
  await page.getByRole("link", { name: "unit-4999" }).waitFor();
  assert.equal(await page.locator("#rows > tr").last().getAttribute("aria-rowindex"), "5001");
  await page.evaluate(() => scrollTo(0, document.documentElement.scrollHeight / 2));
  await page.getByRole("link", { name: /^unit-2[45]\d\d$/ }).first().waitFor();
  // A range that is longer than what is here.
  const first = page.locator("#rows > tr").nth(40).getByRole("checkbox");
  const from = Number(await page.locator("#rows > tr").nth(40).getAttribute("aria-rowindex"));
  await first.click();
  await page.evaluate(() => scrollBy(0, 20_000));
  await page.waitForFunction((from) => Number(document.querySelector("#rows > tr").getAttribute("aria-rowindex")) > from + 200, from);
  const inView = page.locator("#rows > tr").nth(40);
  const to = Number(await inView.getAttribute("aria-rowindex"));
  await inView.getByRole("checkbox").click({ modifiers: ["Shift"] });
  await page.getByText(`${(to - from + 1).toLocaleString("en")} selected`).waitFor();
  await page.getByRole("button", { name: "Select the first 1,000 of 5,000 that match" }).click();
  await page.getByText("1,000 selected").waitFor();
  await page.getByRole("button", { name: "Clear" }).click();
});

await step("5,000 devices: 1,000 of them come and go in a second", async () => {
  await page.goto(CONSOLE + "/devices?q=unit");
  await page.locator("#live-state[data-state=on]").waitFor();
  await page.locator("#rows input[name=id]").nth(3).click();
  await page.evaluate(() => {
    window.updates = [];
    document.addEventListener("htmx:after:swap", (e) => e.target.id === "list" && window.updates.push(performance.now()));
  });
  // Seconds of processor time of all that draws pages.
  const cdp = await browser.newBrowserCDPSession();
  const busy = async () => (await cdp.send("SystemInfo.getProcessInfo")).processInfo.filter((p) => p.type === "renderer").reduce((sum, p) => sum + p.cpuTime, 0);
  const [before, start] = [await busy(), Date.now()];
  const changes = Number(await control("/flap", { rate: 1000, for: "5s", name: "unit" }));
  const [seconds, used] = [(Date.now() - start) / 1000, (await busy()) - before];
  const updates = await page.evaluate(() => window.updates);
  const closest = Math.min(...updates.slice(1).map((t, i) => t - updates[i]));
  console.log(`${changes} changes in ${seconds.toFixed(1)} s: ${updates.length} updates (${(updates.length / seconds).toFixed(2)} a second, closest ${closest.toFixed(0)} ms), its pages used ${((100 * used) / seconds).toFixed(1)} % of a core`);
  assert.ok(updates.length > 0, "nothing was updated");
  assert.ok(updates.length <= 2 * seconds + 1, `${updates.length} updates in ${seconds} s`);
  await page.getByText("1 selected").waitFor();
  await look(page, "many");
  await page.getByRole("button", { name: "Clear" }).click();
});
