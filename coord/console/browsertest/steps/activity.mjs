import assert from "node:assert/strict";
import { CONSOLE, wide, control, household, look, step, run } from "../lib.mjs";

const { page } = run;

await step("activity: filter, details, verify, by keyboard", async () => {
  await household();
  await page.setViewportSize(wide);
  // Something to read about.
  await page.goto(CONSOLE + "/devices?q=nas");
  await page.getByRole("link", { name: "nas", exact: true }).click();
  await page.getByRole("link", { name: "Settings of nas" }).click();
  await page.selectOption("#lan-names", "off");
  await page.getByRole("button", { name: "Set", exact: true }).click();
  await page.getByText("Devices fetch it within seconds").waitFor();
  await page.goto(CONSOLE + "/devices");
  await page.getByRole("link", { name: "Activity", exact: true }).click();
  await page.getByRole("heading", { name: "Activity", exact: true }).waitFor();
  await look(page, "activity");
  await page.setViewportSize(wide);
  await page.selectOption("#a-what", "device.");
  await page.selectOption("#a-since", "7d");
  await page.locator("#a-device").focus();
  await page.keyboard.type("nas");
  await page.keyboard.press("Enter");
  await page.waitForURL("**/activity?*device=nas*");
  await page.getByRole("link", { name: "Since: last 7 days" }).waitFor();
  const entry = page.locator(".acts li").filter({ hasText: "Changed its DNS settings" }).first();
  await entry.locator("summary").focus();
  await page.keyboard.press("Enter");
  await entry.locator("ins").first().waitFor();
  await look(page, "activity-details");
  await page.setViewportSize(wide);
  const download = page.waitForEvent("download");
  await page.getByRole("link", { name: "Export CSV" }).click();
  assert.match((await download).suggestedFilename(), /^weft-audit-.*\.csv$/);
  // A filter is taken away by itself.
  await page.getByRole("link", { name: "Done to: nas" }).focus();
  await page.keyboard.press("Enter");
  await page.waitForURL((u) => !u.search.includes("device=nas") && u.search.includes("since=7d"));
  // Rows do not move when something happens; a note says so.
  const top = await page.locator(".acts summary").first().textContent();
  await page.locator("#live-state[data-state=on]").waitFor();
  await control("/add", { name: "shed-pi" });
  await page.getByRole("link", { name: /new records?$/ }).waitFor();
  assert.equal(await page.locator(".acts summary").first().textContent(), top);
  await look(page, "activity-newer");
  await page.getByRole("link", { name: /new records?$/ }).click();
  await page.locator(".acts summary").first().locator(".act").getByText("shed-pi").waitFor();
  await page.getByRole("link", { name: "Verify", exact: true }).click();
  await page.getByRole("button", { name: "Verify the records" }).focus();
  await page.keyboard.press("Enter");
  await page.getByRole("status").filter({ hasText: "are as they were written" }).waitFor();
  await page.waitForFunction(() => location.pathname === "/activity/verify"); // a reload would send the form again
  await look(page, "activity-verified");
  await page.getByRole("link", { name: "Introductions", exact: true }).click();
  await page.getByText("No device has reported anything.").waitFor();
  await page.fill("#i-tag", "sensor");
  await page.getByRole("button", { name: "Have them report" }).click();
  await page.getByText("Devices fetch it within seconds").waitFor();
  await control("/introductions");
  await page.goto(CONSOLE + "/activity/introductions");
  await page.getByText("introduced itself").first().waitFor();
  await look(page, "introductions");
  await page.setViewportSize(wide);
  await page.getByRole("button", { name: "End it for the tag sensor" }).click();
  await page.getByText("None.").waitFor();
});
