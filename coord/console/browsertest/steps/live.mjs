import assert from "node:assert/strict";
import { CONSOLE, password, wide, control, household, look, newPage, step, expect, run } from "../lib.mjs";

const { page } = run;

await step("devices change under one's eyes, and typing is not disturbed", async () => {
  await household();
  await page.goto(CONSOLE + "/devices");
  await page.locator("#live-state[data-state=on]").waitFor();
  const row = page.locator(`#d-${run.joined}`);
  await row.locator(".status.online").waitFor();
  await control("/online", { id: run.joined, on: "false" });
  await row.locator(".status.offline").waitFor();
  await look(page, "devices");
  await page.setViewportSize(wide);

  await page.keyboard.press("/");
  await page.keyboard.type("sens");
  await page.waitForFunction(() => document.querySelectorAll("#rows > tr").length === 3);
  assert.match(page.url(), /q=sens/);
  await page.evaluate(() => {
    window.sameInput = document.querySelector("#q");
    window.updates = 0;
    document.addEventListener("htmx:after:swap", (e) => (window.updates += e.detail.ctx.sourceElement.id === "list"));
  });
  const updated = async (on) => {
    const before = await page.evaluate(() => window.updates);
    await control("/online", { id: run.joined, on });
    await page.waitForFunction((n) => window.updates > n, before);
  };
  await updated("true"); // a live update while typing
  await page.keyboard.type("or");
  await page.waitForFunction(() => location.search === "?q=sensor");
  assert.equal(await page.inputValue("#q"), "sensor");
  assert.ok(await page.evaluate(() => window.sameInput === document.activeElement), "the search field was replaced");
  // The live update must follow the search, not the page as it was loaded.
  await updated("false");
  assert.equal(await page.locator("#rows > tr").count(), 3);
  await page.keyboard.type(" zzz");
  await page.getByText("Nothing matches").waitFor();
  await look(page, "nothing");
});

await step("a server that hangs: the page says so, greys what it shows, and recovers", async () => {
  // Its clock goes on by as much as a person would wait.
  const mine = await newPage({ storageState: await page.context().storageState() });
  await mine.clock.install();
  await mine.goto(CONSOLE + "/devices");
  await mine.locator("#live-state[data-state=on]").waitFor();
  const rows = mine.locator("#rows > tr");
  const all = await rows.count();
  expect(/htmx:(sse:)?error/);
  await control("/freeze");
  await mine.locator("#q").fill("nas");
  await mine.locator("#devices[data-waiting]").waitFor();
  await mine.clock.fastForward(11_000);
  await mine.getByText("The server has not answered since").waitFor();
  assert.equal(await mine.locator("#live-state").textContent(), "No answer");
  const failed = mine.locator("#devices > .failed");
  await mine.clock.fastForward(5_000);
  await failed.waitFor();
  assert.equal(await rows.count(), all);
  await look(mine, "silent");
  await mine.clock.fastForward(6_000); // the connection is given up for another
  await control("/thaw");
  await mine.locator("#silent").waitFor({ state: "hidden" });
  await mine.locator("#live-state[data-state=on]").waitFor();
  // What was asked for meanwhile is asked for again, without a click.
  await mine.waitForFunction(() => document.querySelectorAll("#rows > tr").length === 1);
  await failed.waitFor({ state: "hidden" });
  await mine.locator("#devices:not([data-waiting])").waitFor();
  // Live again.
  await mine.locator("#q").fill("");
  await mine.waitForFunction((n) => document.querySelectorAll("#rows > tr").length === n, all);
  await control("/online", { id: run.joined, on: "true" });
  await mine.locator(`#d-${run.joined} .status.online`).waitFor();
  await control("/online", { id: run.joined, on: "false" });
  await mine.locator(`#d-${run.joined} .status.offline`).waitFor();
  // A request alone that fails can be tried again. Nothing else asks for the list meanwhile,
  // after which it would be made again by itself.
  await mine.goto(CONSOLE + "/devices");
  await mine.locator("#live-state[data-state=on]").waitFor();
  await mine.evaluate(() => document.getElementById("live").remove());
  expect(/htmx:error|ERR_FAILED/);
  await mine.route(/q=green/, (route) => route.abort(), { times: 1 });
  await mine.locator("#q").fill("green");
  await failed.getByRole("button", { name: "Try again" }).click();
  await mine.locator("#rows > tr").getByText("greenhouse").waitFor();
  await failed.waitFor({ state: "hidden" });
  expect();
  await mine.context().close();
});

await step("what was typed survives a session that ends", async () => {
  expect(/401/);
  for (const how of ["while typing", "before the button"]) {
    await page.goto(`${CONSOLE}/devices/${run.joined}/settings`);
    await page.locator("#live-state[data-state=on]").waitFor();
    await page.fill("#newname", "half-typed");
    if (how === "while typing") {
      await control("/drop-sessions");
    } else {
      // The page does not hear of it: the stream is gone.
      await page.evaluate(() => document.getElementById("live").remove());
      await control("/drop-sessions");
      await page.getByRole("button", { name: "Rename" }).click();
    }
    await page.getByRole("heading", { name: "Sign in" }).waitFor();
    await page.fill("#name", "admin");
    await page.fill("#password", password);
    await page.getByRole("button", { name: "Sign in", exact: true }).click();
    await page.waitForURL(`**/devices/${run.joined}/settings`);
    await page.getByText("It is filled in again.").waitFor();
    assert.equal(await page.inputValue("#newname"), "half-typed", how);
    assert.equal(await page.evaluate(() => sessionStorage.getItem("draft")), null);
  }
  expect();
});
