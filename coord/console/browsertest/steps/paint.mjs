import assert from "node:assert/strict";
import { CONSOLE, newPage, step, run } from "../lib.mjs";

const { page } = run;

await step("the style sheet stands in the first page, and is a file for the others", async () => {
  const state = await page.context().storageState();
  state.cookies = state.cookies.filter((c) => !c.name.endsWith("-style"));
  for (const javaScriptEnabled of [true, false]) {
    const mine = await newPage({ storageState: state, javaScriptEnabled });
    const seen = async () => {
      await mine.goto(CONSOLE + "/activity");
      const [side, inPage, linked] = await mine.evaluate(() => [getComputedStyle(document.querySelector(".side")).position, document.querySelectorAll("style").length, document.querySelectorAll("link[rel=stylesheet]").length]);
      assert.notEqual(side, "static", "the page has no style");
      return { inPage, linked };
    };
    assert.deepEqual(await seen(), { inPage: 1, linked: 0 });
    assert.deepEqual(await seen(), { inPage: 0, linked: 1 });
    if (javaScriptEnabled) {
      // One stream: what began with the page is what htmx goes on with.
      const streams = [];
      mine.on("request", (r) => r.url().includes("/events") && streams.push(r.url()));
      await mine.goto(CONSOLE + "/devices");
      await mine.locator("#live-state[data-state=on]").waitFor();
      assert.equal(streams.length, 1);
    }
    await mine.context().close();
  }
});
