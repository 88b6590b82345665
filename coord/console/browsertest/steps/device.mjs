import assert from "node:assert/strict";
import { CONSOLE, wide, control, look, newPage, step, expect, run } from "../lib.mjs";

const { page } = run;
const id = run.joined;
const at = `${CONSOLE}/devices/${id}`;

// by presses keys only: Tab until something has the focus, then whatever follows.
async function tabTo(selector, most = 60) {
  for (let i = 0; i < most; i++) {
    if (await page.evaluate((s) => document.activeElement.matches(s), selector)) return;
    await page.keyboard.press("Tab");
  }
  assert.fail(`the keyboard does not reach ${selector}`);
}

await step("device page: what is known of it, online and offline", async () => {
  await control("/online", { id, on: "true" });
  await page.setViewportSize(wide);
  await page.goto(at);
  await page.locator("#live-state[data-state=on]").waitFor();
  await page.locator("#latency .num").getByText(/^[0-9.]+ ms$/).waitFor(); // the first of the line, by itself
  await page.getByText("From a terminal").click();
  const names = await page.locator("#device .copy").evaluateAll((list) => list.map((b) => b.getAttribute("aria-label")));
  assert.ok(names.length > 6 && new Set(names).size === names.length, `names of buttons: ${names}`);
  await look(page, "device");
  // What is open stays open when the page follows a change.
  await control("/online", { id, on: "false" });
  await page.getByRole("heading", { name: /^Offline, last seen/ }).waitFor();
  assert.ok(await page.locator("details.terminal").evaluate((d) => d.open));
  assert.equal(await page.locator("#latency").count(), 0, "an offline device is still measured");
  await look(page, "device-offline");
  await control("/online", { id, on: "true" });
  await page.locator("#latency .num").waitFor();
});

await step("device page: the line of round trips goes on only while somebody sees it", async () => {
  const mine = await newPage({ storageState: await page.context().storageState() });
  const asked = [];
  mine.on("request", (r) => r.url().endsWith("/test") && asked.push(r.headers()["weft-passive"]));
  await mine.clock.install();
  await mine.goto(at);
  const until = (n) => mine.waitForFunction((n) => document.querySelector("#latency-form [name=samples]").value.split(" ").filter(Boolean).length === n, n);
  await until(1);
  await mine.clock.runFor(5_100);
  await until(2);
  assert.match(await mine.locator("#latency .spark").getAttribute("aria-label"), /^Round trip to \S+: .* ms/);
  // Hidden: the browser says so, and nothing is asked for.
  const hide = (hidden) => mine.evaluate((hidden) => {
    Object.defineProperty(document, "hidden", { configurable: true, get: () => hidden });
    document.dispatchEvent(new Event("visibilitychange"));
  }, hidden);
  await hide(true);
  const before = asked.length;
  await mine.clock.runFor(12_000);
  assert.equal(asked.length, before, "a hidden page goes on measuring");
  await hide(false);
  await until(3);
  assert.ok(asked.every((h) => h === "1"), "samples keep the session alive");
  // It pauses by itself after a while, until somebody wants more.
  await mine.evaluate(() => (samples = samplesAtOnce));
  const all = asked.length;
  await mine.clock.runFor(12_000);
  await mine.getByText("Paused after five minutes.").waitFor();
  assert.equal(asked.length, all);
  await mine.getByRole("button", { name: "Measure again" }).click();
  await mine.getByText("Paused after five minutes.").waitFor({ state: "hidden" });
  await mine.context().close();
});

await step("device page by keyboard: rename, undo, tag, undo", async () => {
  await page.setViewportSize(wide);
  await page.goto(at);
  await tabTo(".menu > summary");
  await page.keyboard.press("Enter");
  await tabTo(".menu a");
  await page.keyboard.press("Enter");
  await page.waitForURL("**/settings#newname");
  await tabTo("#newname");
  const was = await page.inputValue("#newname");
  await look(page, "device-settings");
  await page.locator("#newname").focus();
  await page.keyboard.press("ControlOrMeta+a");
  await page.keyboard.type("larder-pi");
  await page.keyboard.press("Enter");
  await page.getByRole("heading", { name: "larder-pi", exact: true }).waitFor();
  await page.getByText("Renamed to larder-pi.").waitFor();
  await look(page, "device-undo");
  await page.goto(page.url()); // look took a while
  await page.evaluate(() => document.querySelector("#newname").focus());
  await page.keyboard.press("ControlOrMeta+a");
  await page.keyboard.type("pantry-pi");
  await page.keyboard.press("Enter");
  await page.getByText("Renamed to pantry-pi.").waitFor();
  await tabTo(".undo");
  await page.keyboard.press("Enter");
  await page.getByText("Undone: it is called larder-pi again.").waitFor();
  await page.getByRole("heading", { name: "larder-pi", exact: true }).waitFor();
  assert.equal(await page.locator(".undo").count(), 0);

  await tabTo("#newtags");
  await page.keyboard.press("End");
  await page.keyboard.type(" kitchen");
  await page.keyboard.press("Enter");
  await page.getByText("Its older certificates are revoked").waitFor();
  assert.equal(await page.inputValue("#newtags"), "device kitchen");
  await tabTo(".undo");
  await page.keyboard.press("Space");
  await page.getByText("Undone: its tags are device again.").waitFor();
  await page.getByRole("link", { name: "Activity of larder-pi" }).click();
  await page.waitForURL("**/activity");
  assert.equal(await page.locator(".acts b", { hasText: "Renamed" }).count(), 3);
  await page.locator(".acts summary").first().click();
  await look(page, "device-activity");
  assert.notEqual(was, "larder-pi");

  expect(/422/);
  await page.goto(at + "/settings");
  await page.fill("#newname", "no spaces here");
  await page.keyboard.press("Enter");
  await page.getByText("A name has").waitFor();
  await page.waitForURL("**/settings"); // a reload would send the form again
  expect();
});

await step("device page in two tabs: both agree, and nothing that was typed is lost", async () => {
  await page.goto(at + "/settings");
  const other = await page.context().newPage();
  await other.goto(at + "/settings");
  await other.locator("#live-state[data-state=on]").waitFor();
  await other.fill("#newtags", "device half-typed");
  await page.fill("#newname", "shed-pi");
  await page.getByRole("button", { name: "Rename" }).click();
  await page.getByText("Renamed to shed-pi.").waitFor();
  // The other tab follows, but for the form that somebody is at.
  await other.getByRole("heading", { name: "shed-pi", exact: true }).waitFor();
  await other.waitForFunction(() => document.querySelector("#newname").value === "shed-pi");
  await other.locator("#f-assign .changed").waitFor();
  assert.equal(await other.inputValue("#newtags"), "device half-typed");
  assert.ok(await other.locator("#f-rename .changed").isHidden());
  expect(/409/);
  await other.locator("#f-assign button").click();
  await other.getByText("Somebody else has changed this device since you opened the page").waitFor();
  expect();
  assert.equal(await other.inputValue("#newtags"), "device half-typed");
  await look(other, "device-changed");
  await other.locator("#f-assign button").click(); // now on purpose
  await other.getByText("Its older certificates are revoked").waitFor();
  await page.bringToFront();
  await page.waitForFunction(() => document.querySelector("#newtags").value === "device half-typed");
  // What the first tab did cannot be undone any more: somebody has changed it since.
  await page.fill("#newname", "barn-pi");
  await page.getByRole("button", { name: "Rename" }).click();
  await page.getByText("Renamed to barn-pi.").waitFor();
  await other.bringToFront();
  await other.waitForFunction(() => document.querySelector("#newname").value === "barn-pi");
  await other.fill("#newname", "larder-pi");
  await other.getByRole("button", { name: "Rename" }).click();
  await other.getByText("Renamed to larder-pi.").waitFor();
  expect(/409/);
  await page.bringToFront();
  await page.getByRole("button", { name: "Undo" }).click();
  await page.getByText("Not undone: somebody has changed this device since").waitFor();
  expect();
  await other.close();
});

await step("device page without JavaScript: tabs, a round trip, undo", async () => {
  const plain = await newPage({ javaScriptEnabled: false, storageState: await page.context().storageState() });
  await plain.goto(at);
  await plain.getByRole("button", { name: "Measure" }).click();
  await plain.locator("#latency .num").waitFor();
  await plain.getByRole("button", { name: "Measure again" }).click();
  assert.equal((await plain.locator("[name=samples]").inputValue()).split(" ").length, 2);
  await plain.getByRole("link", { name: "Settings of larder-pi" }).click();
  await plain.fill("#newname", "attic-pi");
  await plain.getByRole("button", { name: "Rename" }).click();
  await plain.getByRole("button", { name: "Undo" }).click();
  await plain.getByText("Undone: it is called larder-pi again.").waitFor();
  await plain.context().close();
});

await step("device page: replace, delete with the name typed, by keyboard", async () => {
  const fresh = await control("/add", { name: "larder-pi" });
  await page.goto(`${CONSOLE}/devices/${fresh}/settings`);
  assert.equal(await page.inputValue("#old"), "larder-pi"); // the one that it was named after
  expect(/422/);
  await page.fill("#old", "nobody");
  await page.getByRole("button", { name: "Continue" }).click();
  await page.getByText("No device has this name.").waitFor();
  expect();
  await page.fill("#old", "larder-pi");
  await page.getByRole("button", { name: "Continue" }).click();
  await page.getByRole("heading", { name: "Replace larder-pi?" }).waitFor();
  await look(page, "replace");
  await page.getByRole("button", { name: "Replace" }).click();
  await page.getByText("Replaced.").waitFor();
  await page.getByRole("heading", { name: "larder-pi", exact: true }).waitFor();

  await page.goto(`${CONSOLE}/devices/${fresh}/settings#typed`);
  const button = page.getByRole("button", { name: "Delete", exact: true });
  assert.ok(await button.isDisabled());
  await tabTo("#typed");
  await page.keyboard.type("kitchen-pi");
  assert.ok(await button.isDisabled());
  await page.keyboard.press("ControlOrMeta+a");
  await page.keyboard.type("larder-pi");
  expect(/404/); // the page may hear of it before it is left
  await page.keyboard.press("Enter");
  await page.waitForURL("**/devices?done=deleted*");
  await page.getByText("Deleted larder-pi.").waitFor();
  expect();
  assert.equal(await page.getByRole("link", { name: "larder-pi" }).count(), 0);
});

await step("device page of a long name that is not ASCII", async () => {
  const long = await control("/add", { name: "wohnzimmer-überwachungskamera-süd-östlich-balkon" });
  await page.goto(`${CONSOLE}/devices/${long}`);
  await page.getByRole("heading", { name: "Never connected" }).waitFor();
  await look(page, "device-long");
  await page.goto(`${CONSOLE}/devices/${long}/settings`);
  await look(page, "device-long-settings");
});
