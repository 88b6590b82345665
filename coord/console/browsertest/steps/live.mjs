import assert from "node:assert/strict";
import { CONSOLE, password, wide, control, look, step, expect, run } from "../lib.mjs";

const { page } = run;

await step("devices change under one's eyes, and typing is not disturbed", async () => {
  await control("/sample");
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
  await page.evaluate(() => (window.sameInput = document.querySelector("#q")));
  await control("/online", { id: run.joined, on: "true" }); // a live update while typing
  await page.waitForTimeout(300);
  await page.keyboard.type("or");
  await page.waitForFunction(() => location.search === "?q=sensor");
  assert.equal(await page.inputValue("#q"), "sensor");
  assert.ok(await page.evaluate(() => window.sameInput === document.activeElement), "the search field was replaced");
  // The live update must follow the search, not the page as it was loaded.
  await control("/online", { id: run.joined, on: "false" });
  await page.waitForTimeout(900);
  assert.equal(await page.locator("#rows > tr").count(), 3);
  await page.keyboard.type(" zzz");
  await page.getByText("Nothing matches").waitFor();
  await look(page, "nothing");
});

await step("a server that hangs: the page says so, greys what it shows, and recovers", async () => {
  await page.setViewportSize(wide);
  await page.goto(CONSOLE + "/devices");
  await page.locator("#live-state[data-state=on]").waitFor();
  const rows = page.locator("#rows > tr");
  const all = await rows.count();
  expect(/htmx:error/);
  await control("/freeze");
  await page.locator("#q").fill("nas");
  await page.locator("#devices[data-waiting]").waitFor();
  await page.getByText("The server has not answered since").waitFor({ timeout: 20_000 });
  assert.equal(await page.locator("#live-state").textContent(), "No answer");
  const failed = page.locator("#devices > .failed");
  await failed.waitFor({ timeout: 25_000 });
  assert.equal(await rows.count(), all);
  await look(page, "silent");
  await page.setViewportSize(wide);
  await control("/thaw");
  await page.locator("#silent").waitFor({ state: "hidden" });
  await page.locator("#live-state[data-state=on]").waitFor();
  // What was asked for meanwhile is asked for again, without a click.
  await page.waitForFunction(() => document.querySelectorAll("#rows > tr").length === 1);
  await failed.waitFor({ state: "hidden" });
  await page.locator("#devices:not([data-waiting])").waitFor();
  // A request alone that fails can be tried again.
  expect(/htmx:error|ERR_FAILED/);
  await page.route(/q=green/, (route) => route.abort(), { times: 1 });
  await page.locator("#q").fill("green");
  await failed.getByRole("button", { name: "Try again" }).click();
  await page.locator("#rows > tr").getByText("greenhouse").waitFor();
  await failed.waitFor({ state: "hidden" });
  // Live again.
  await page.locator("#q").fill("");
  await page.waitForFunction((n) => document.querySelectorAll("#rows > tr").length === n, all);
  await control("/online", { id: run.joined, on: "true" });
  await page.locator(`#d-${run.joined} .status.online`).waitFor();
  await control("/online", { id: run.joined, on: "false" });
  await page.locator(`#d-${run.joined} .status.offline`).waitFor();
  expect();
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
