import assert from "node:assert/strict";
import { CONSOLE, browser, control, step, run } from "../lib.mjs";

const kb = (n) => `${(n / 1000).toFixed(1)} KB`;

// open opens a page as a first visit does, and says what that took. Times are said, and
// nothing depends on them: they are this machine's.
async function open(cookies, path, { latency, bits, cpu }) {
  const context = await browser.newContext({ viewport: { width: 1440, height: 900 } });
  try {
    await context.addCookies(cookies);
    const page = await context.newPage();
    const cdp = await context.newCDPSession(page);
    await cdp.send("Network.enable");
    await cdp.send("Network.emulateNetworkConditions", { offline: false, latency, downloadThroughput: bits / 8, uploadThroughput: bits / 16, connectionType: "cellular3g" });
    await cdp.send("Emulation.setCPUThrottlingRate", { rate: cpu });
    const kinds = {}, types = {};
    cdp.on("Network.responseReceived", (e) => (types[e.requestId] = e.type));
    cdp.on("Network.loadingFinished", (e) => (kinds[types[e.requestId]] = (kinds[types[e.requestId]] ?? 0) + e.encodedDataLength));
    await page.addInitScript(() => {
      document.addEventListener("DOMContentLoaded", () => {
        const state = document.getElementById("live-state");
        new MutationObserver(() => state.dataset.state === "on" && (window.liveAt ??= performance.now())).observe(state, { attributes: true });
      });
    });
    await page.goto(CONSOLE + path);
    await page.waitForFunction(() => window.liveAt && performance.getEntriesByName("first-contentful-paint").length);
    const times = await page.evaluate(() => {
      const nav = performance.getEntriesByType("navigation")[0];
      return { "first byte": nav.responseStart, paint: performance.getEntriesByName("first-contentful-paint")[0].startTime, parsed: nav.domInteractive, live: window.liveAt };
    });
    return { bytes: Object.values(kinds).reduce((a, b) => a + b, 0), kinds, times };
  } finally {
    await context.close();
  }
}

await step("what a first visit of 300 devices takes", async () => {
  await run.page.goto(CONSOLE + "/devices");
  if ((await run.page.locator("main tr[id^=d-]").count()) < 50) await control("/many"); // one step alone
  const cookies = (await run.page.context().cookies()).filter((c) => !c.name.endsWith("-style")); // a first visit
  for (const [name, how] of [
    ["150 ms, 1.6 Mbit/s, CPU / 4", { latency: 150, bits: 1.6e6, cpu: 4 }],
    ["562 ms, 1.44 Mbit/s, CPU / 4", { latency: 562.5, bits: 1.44e6, cpu: 4 }],
    ["no limit", { latency: 0, bits: 1e9, cpu: 1 }],
  ]) {
    const { bytes, kinds, times } = await open(cookies, "/devices", how);
    console.log(`   ${name}: ${kb(bytes)} (${Object.entries(kinds).map(([k, n]) => `${k} ${kb(n)}`).join(", ")}); ${Object.entries(times).map(([k, n]) => `${k} ${Math.round(n)} ms`).join(", ")}`);
    assert.ok(bytes <= 60_000, `${bytes} bytes`);
  }
});
