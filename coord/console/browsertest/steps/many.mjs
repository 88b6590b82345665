import assert from "node:assert/strict";
import { CONSOLE, browser, wide, control, newPage, look, step, run } from "../lib.mjs";
import { tasks, said } from "../trace.mjs";

const { page } = run;

await step("5,000 devices", async () => {
  await control("/many");
  await page.setViewportSize(wide);
  await page.goto(CONSOLE + "/devices?q=unit");
  await page.locator("#rows").waitFor();
  assert.match(await page.locator(".result").textContent(), /^5,000 of 5,\d\d\d devices/);
  await page.locator("#live-state[data-state=on]").waitFor();
});

// scrollThrough scrolls through a page of so many pixels, a step a frame, and says how long
// the frames were in the browser's own time.
async function scrollThrough(page, height) {
  const measured = await tasks(page, () => page.evaluate(async (height) => {
    const frames = [];
    let last = performance.now();
    let most = 0;
    const end = height || document.documentElement.scrollHeight - innerHeight;
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
  }, height));
  const f = measured.result;
  return { ...f, text: `${f.frames} frames: median ${f.median.toFixed(1)} ms, 99 % ${f.p99.toFixed(1)} ms, longest ${f.longest.toFixed(1)} ms, ${f.over50} over 50 ms; ${said(measured)}` };
}

await step("5,000 devices: rows come as one scrolls, and go", async () => {
  await page.evaluate(() => {
    window.put = 0; // rows at once, at most
    new MutationObserver((records) => (window.put = Math.max(window.put, records.reduce((n, r) => n + r.addedNodes.length, 0)))).observe(document.getElementById("rows"), { childList: true });
  });
  const scroll = await scrollThrough(page);
  console.log(`scrolled ${scroll.height} px in ${scroll.text}; at most ${scroll.most} rows`);
  // What this machine takes for 100 rows of text that never change.
  const floor = await newPage({ storageState: await page.context().storageState() });
  await floor.goto(CONSOLE + "/devices?q=nothing");
  await floor.evaluate((height) => {
    const [box, table] = [document.createElement("div"), document.createElement("table")];
    box.style.cssText = `position: relative; height: ${height}px`;
    table.style.cssText = "position: sticky; top: 0";
    for (let i = 0; i < 100; i++) {
      const row = table.insertRow();
      for (let n = 0; n < 8; n++) row.insertCell().textContent = `unit-${i} ${n}`;
    }
    box.append(table);
    document.body.replaceChildren(box);
  }, scroll.height);
  console.log(`100 rows that do not change: ${(await scrollThrough(floor, scroll.height)).text}`);
  await floor.context().close();
  assert.ok(scroll.most <= 100, `${scroll.most} rows at once`);
  // Those in view, four before and after them, and few more.
  const put = await page.evaluate(() => window.put);
  assert.ok(put > 0 && put <= Math.ceil(wide.height / 40) + 1 + 2 * 4 + 4, `${put} rows were put in at once`);
  await page.getByRole("link", { name: "unit-4999" }).waitFor();
  assert.equal(await page.locator("#rows > tr").last().getAttribute("aria-rowindex"), "5001");
  await page.evaluate(() => scrollTo(0, document.documentElement.scrollHeight / 2));
  await page.getByRole("link", { name: /^unit-2[45]\d\d$/ }).first().waitFor();
  // A range that is longer than what is here.
  // Rows come before and after the one in the middle of the view: it is known by its id.
  const middle = async (after) => {
    const found = await page.waitForFunction((after) => {
      const row = document.elementFromPoint(innerWidth / 2, innerHeight / 2)?.closest("#rows > tr");
      const number = Number(row?.getAttribute("aria-rowindex"));
      return number > after && { id: row.id, number };
    }, after);
    const { id, number } = await found.jsonValue();
    return [page.locator(`#${id}`).getByRole("checkbox"), number];
  };
  const [first, from] = await middle(0);
  await first.click();
  await page.evaluate(() => scrollBy(0, 20_000));
  const [last, to] = await middle(from + 200);
  await last.click({ modifiers: ["Shift"] });
  await page.getByText(`${(to - from + 1).toLocaleString("en")} selected`).waitFor();
  await page.getByRole("button", { name: "Select the first 1,000" }).click();
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

await step("5,000 devices: what did not change is left alone, and a page that nobody sees asks for nothing", async () => {
  await page.goto(CONSOLE + "/devices?q=unit");
  await page.locator("#live-state[data-state=on]").waitFor();
  // An answer that is what is shown: a minute may pass between two of them, but not always.
  const again = () => page.evaluate(() => new Promise((done) => {
    let swapped = false;
    const see = () => (swapped = true);
    document.addEventListener("htmx:before:swap", see);
    document.addEventListener("htmx:finally:request", () => {
      document.removeEventListener("htmx:before:swap", see);
      done(swapped);
    }, { once: true });
    htmx.trigger("#list", "fresh");
  }));
  await again();
  let swapped = true;
  for (let i = 0; i < 5 && swapped; i++) swapped = await again();
  assert.ok(!swapped, "the same answer was put in again");
  // Of a row, the cells that changed.
  const row = page.locator("#rows > tr").nth(1);
  const [name, was] = [await row.locator(".lead").textContent(), await row.locator(".status span").textContent()];
  await row.getByRole("link", { name, exact: true }).focus();
  await row.evaluate((row) => (window.kept = { row, name: row.querySelector(".lead"), box: row.querySelector("input") }));
  await control("/presence", { name, on: String(was !== "Online") });
  await row.locator(".status span").getByText(was === "Online" ? "Offline" : "Online").waitFor();
  assert.ok(await row.evaluate((row) => row === window.kept.row && row.querySelector(".lead") === window.kept.name && row.querySelector("input") === window.kept.box && row.contains(document.activeElement)), "more than what changed was drawn again");
  // Nobody sees the page.
  let asked = 0;
  page.on("request", (r) => (asked += r.headers()["weft-passive"] === "list" ? 1 : 0));
  const hide = (hidden) => page.evaluate((hidden) => {
    Object.defineProperty(document, "hidden", { value: hidden, configurable: true });
    document.dispatchEvent(new Event("visibilitychange"));
  }, hidden);
  await hide(true);
  const refused = await page.evaluate(() => new Promise((done) => {
    document.addEventListener("htmx:config:request", (e) => done(e.defaultPrevented), { once: true });
    htmx.trigger("#list", "fresh");
  }));
  assert.ok(refused, "a page that nobody sees asked for the list");
  await control("/presence", { name, on: String(was === "Online") });
  assert.equal(asked, 0);
  await hide(false);
  await row.locator(".status span").getByText(was, { exact: true }).waitFor();
  await page.evaluate(() => delete document.hidden);
});
