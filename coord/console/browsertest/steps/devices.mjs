import assert from "node:assert/strict";
import { CONSOLE, WEFT_SHOTS, wide, control, newPage, look, step, expect, run } from "../lib.mjs";

const { page } = run;
const rows = page.locator("#rows > tr");
const result = page.locator(".result > :first-child");
const live = () => page.locator("#live-state[data-state=on]").waitFor();
let all; // devices, of whatever step
const says = (text) => result.getByText(text, { exact: true }).waitFor();

await step("300 devices: filters as chips and in the address, search, order", async () => {
  await control("/fleet", { n: 300, name: "cell" });
  await page.setViewportSize(wide);
  await page.goto(CONSOLE + "/devices?q=cell");
  await live();
  all = Number(/of (\d+) devices/.exec(await result.textContent())[1]);
  await says(`300 of ${all} devices`);
  await look(page, "devices-300");

  await page.getByText("Filter", { exact: true }).click();
  await page.waitForFunction(() => document.querySelector("details.filters").open);
  await look(page, "devices-filter");
  await page.getByRole("link", { name: "#site-berlin" }).click();
  await says(`75 of ${all} devices`);
  assert.equal(new URL(page.url()).searchParams.get("q"), "cell tag:site-berlin");
  await page.getByRole("link", { name: "Offline", exact: true }).click();
  await says(`25 of ${all} devices`);
  assert.equal(new URL(page.url()).searchParams.get("q"), "cell tag:site-berlin is:offline");
  await look(page, "devices-chips");
  await page.getByRole("link", { name: /#site-berlin.*remove this filter/ }).click();
  await says(`100 of ${all} devices`);
  await page.goBack();
  await says(`25 of ${all} devices`);

  // What is typed filters as what is clicked, and what is displayed is found.
  for (const [typed, want] of [["cell macOS", `75 of ${all} devices`], ["cell -tag:site-berlin", `225 of ${all} devices`], ["#site-oslo is:online", `50 of ${all} devices`], ["cell seen:never", `100 of ${all} devices`]]) {
    await page.locator("#q").fill(typed);
    await says(want);
    await page.waitForFunction((q) => new URLSearchParams(location.search).get("q") === q, typed);
  }
  await page.locator("#q").fill("colour:red");
  await page.getByRole("alert").getByText("There is no filter").waitFor();
  await look(page, "devices-problem");
  await page.getByRole("link", { name: `Show all ${all}` }).click();
  await says(`${all} devices`);

  await page.getByRole("link", { name: "Owner" }).click();
  await page.waitForURL("**sort=owner");
  await page.getByRole("link", { name: /^Name/ }).click();
  await page.waitForURL((url) => !url.search);
  await page.getByRole("link", { name: /^Name/ }).click();
  await page.waitForURL("**sort=-name");
  assert.equal(await page.locator("th[aria-sort=descending]").textContent(), "Name");
  const names = await page.locator("#rows .lead").allTextContents();
  assert.deepEqual(names, [...names].sort().reverse());
});

await step("columns and heights of rows are remembered", async () => {
  await page.goto(CONSOLE + "/devices?q=cell");
  await page.getByText("View", { exact: true }).click();
  await look(page, "devices-view");
  await page.getByRole("checkbox", { name: "Version" }).uncheck();
  await page.getByRole("checkbox", { name: "System" }).check();
  await page.getByRole("radio", { name: "Comfortable" }).check();
  await page.getByRole("button", { name: "Apply" }).click();
  await page.getByRole("columnheader", { name: "System" }).waitFor();
  assert.equal(new URL(page.url()).search, "?q=cell");
  assert.equal(await page.getByRole("columnheader", { name: "Version" }).count(), 0);
  assert.equal(Math.round((await rows.first().boundingBox()).height), 56);
  await look(page, "devices-roomy");
  await page.goto(CONSOLE + "/devices");
  await page.getByRole("columnheader", { name: "System" }).waitFor();
  await page.getByText("View", { exact: true }).click();
  await page.getByRole("checkbox", { name: "Version" }).check();
  await page.getByRole("checkbox", { name: "System" }).uncheck();
  await page.getByRole("radio", { name: "Compact" }).check();
  await page.getByRole("button", { name: "Apply" }).click();
  await page.getByRole("columnheader", { name: "Version" }).waitFor();
  assert.equal(Math.round((await rows.first().boundingBox()).height), 40);
});

await step("many are chosen, stay so while the list changes and scrolls, and are changed", async () => {
  await page.goto(CONSOLE + "/devices?q=cell");
  await live();
  await rows.nth(2).getByRole("checkbox").click();
  await page.getByText("1 selected").waitFor();
  await rows.nth(6).getByRole("checkbox").click({ modifiers: ["Shift"] });
  await page.getByText("5 selected").waitFor();
  await page.locator("#bar input[name=tag]").fill("half");
  // Live updates touch neither what is chosen, nor what is typed, nor where it is scrolled to.
  await page.evaluate(() => scrollTo(0, 900));
  const before = await page.evaluate(() => scrollY);
  const id = (await rows.nth(3).getAttribute("id")).slice(2);
  const swapped = page.evaluate(() => new Promise((done) => document.addEventListener("htmx:after:swap", () => done(), { once: true })));
  await control("/flap", { rate: 200, for: "600ms", name: "cell" });
  await swapped;
  assert.equal(await page.evaluate(() => scrollY), before);
  assert.equal(await page.inputValue("#bar input[name=tag]"), "half");
  assert.ok(await page.evaluate(() => document.activeElement === document.querySelector("#bar input[name=tag]")), "the field lost the focus");
  await page.getByText("5 selected").waitFor();
  assert.ok(await page.locator(`#d-${id} input`).isChecked());
  // They stay chosen while their rows are not here.
  await page.evaluate(() => scrollTo(0, document.documentElement.scrollHeight));
  await page.getByRole("link", { name: "cell-0299" }).waitFor();
  assert.equal(await page.locator(`#d-${id}`).count(), 0);
  await page.getByText("5 selected").waitFor();
  await look(page, "devices-chosen");
  await page.locator("#bar input[name=tag]").fill("half");
  await page.getByRole("button", { name: "Add tag" }).click();
  await page.getByText("5 devices got the tag.").waitFor();
  await page.goto(CONSOLE + "/devices?q=tag:half");
  await says(`5 of ${all} devices`);
  // All that match, though most of them are not here.
  await page.goto(CONSOLE + "/devices?q=cell");
  await rows.first().getByRole("checkbox").click();
  await page.getByRole("button", { name: "Select all 300 that match" }).click();
  await page.getByText("300 selected").waitFor();
  await page.getByRole("button", { name: "Clear" }).click();
  await page.locator("#bar").waitFor({ state: "hidden" });
});

await step("many are deleted, by keyboard alone and with their number typed", async () => {
  expect(/422/);
  await page.goto(CONSOLE + "/devices?q=tag:half");
  await rows.first().getByRole("checkbox").focus();
  for (let i = 0; i < 5; i++) {
    await page.keyboard.press("Space");
    if (i === 4) break;
    // To the next box: past the name and the button that copies.
    for (let n = 0; n < 4; n++) {
      await page.keyboard.press("Tab");
      if (await page.evaluate(() => document.activeElement.name === "id")) break;
    }
  }
  await page.getByText("5 selected").waitFor();
  for (let i = 0; i < 20; i++) {
    await page.keyboard.press("Tab");
    if (await page.evaluate(() => document.activeElement.value === "delete")) break;
  }
  await page.keyboard.press("Enter");
  await page.getByRole("heading", { name: "Delete 5 devices?" }).waitFor();
  await look(page, "devices-delete");
  await page.getByLabel("To delete, type their number: 5").focus();
  await page.evaluate(() => (document.querySelector(".bulkask .destroy").disabled = false));
  await page.keyboard.type("4");
  await page.evaluate(() => (document.querySelector(".bulkask .destroy").disabled = false));
  await page.getByRole("button", { name: "Delete" }).click();
  await page.getByText("That is not their number. Nothing was deleted.").waitFor();
  await page.getByLabel("To delete, type their number: 5").focus();
  await page.keyboard.type("5");
  await page.keyboard.press("Enter");
  await page.getByText("5 devices deleted.").waitFor();
  await page.goto(CONSOLE + "/devices?q=cell");
  await says(`295 of ${all - 5} devices`);
  expect();
});

await step("what cannot be done says which and why", async () => {
  expect(/422/);
  await page.goto(CONSOLE + "/devices?q=cell-0010");
  await rows.first().getByRole("checkbox").click();
  await page.locator("#bar input[name=owner]").fill("nobody");
  await page.keyboard.press("Enter");
  await page.getByRole("heading", { name: "1 device could not be changed" }).waitFor();
  await page.getByText("There is no user of this name.").waitFor();
  await look(page, "devices-failed");
  await page.getByRole("link", { name: "Back to the list" }).click();
  await page.waitForURL("**/devices?q=cell-0010");
  expect();
});

await step("an export holds what is filtered", async () => {
  const res = await page.request.get(CONSOLE + "/devices/export?q=" + encodeURIComponent("cell tag:site-lyon is:online"));
  assert.match(res.headers()["content-type"], /^text\/csv/);
  const lines = (await res.text()).trim().split("\n");
  const shown = await page.request.get(CONSOLE + "/devices/ids?q=" + encodeURIComponent("cell tag:site-lyon is:online"));
  assert.equal(lines.length - 1, (await shown.json()).total);
  assert.ok(lines.slice(1).every((l) => l.includes("site-lyon") && l.includes(",online,")));
});

await step("the list works without JavaScript", async () => {
  const plain = await newPage({ javaScriptEnabled: false });
  await plain.context().addCookies(await page.context().cookies());
  expect(/422/);
  await plain.goto(CONSOLE + "/devices?q=cell");
  await plain.getByText("1–50 of 295 devices").waitFor();
  await plain.getByRole("link", { name: "Next" }).click();
  await plain.getByText("51–100 of 295 devices").waitFor();
  for (let i = 0; i < 3; i++) await plain.getByRole("checkbox", { name: /^Select cell/ }).nth(i).check();
  await plain.getByLabel("Tag to add or remove").fill("plain");
  await plain.getByRole("button", { name: "Add tag" }).click();
  await plain.getByText("3 devices got the tag.").waitFor();
  await plain.goto(CONSOLE + "/devices?q=tag:plain");
  await plain.getByRole("checkbox", { name: "All that match" }).check();
  await plain.getByRole("button", { name: "Delete…" }).click();
  await plain.getByLabel("To delete, type their number: 3").fill("3");
  await plain.getByRole("button", { name: "Delete", exact: true }).click();
  await plain.getByText("3 devices deleted.").waitFor();
  if (WEFT_SHOTS) await plain.screenshot({ path: `${WEFT_SHOTS}/devices-plain.png`, fullPage: true });
  await plain.context().close();
  expect();
});

await step("two tabs and a later day agree", async () => {
  await page.setViewportSize(wide);
  await page.goto(CONSOLE + "/devices?q=cell-0010");
  await live();
  const other = await page.context().newPage();
  await other.goto(CONSOLE + "/devices?q=cell-0010");
  await other.locator("#live-state[data-state=on]").waitFor();
  const word = page.locator("#rows .status span");
  const was = await word.textContent();
  await control("/presence", { name: "cell-0010", on: String(was !== "Online") });
  for (const tab of [page, other]) await tab.locator("#rows .status").getByText(was === "Online" ? "Offline" : "Online").waitFor();
  await other.close();
});
