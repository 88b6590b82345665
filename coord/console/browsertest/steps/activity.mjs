import assert from "node:assert/strict";
import { CONSOLE, wide, control, look, step, run } from "../lib.mjs";

const { page } = run;

await step("activity: filter, details, verify, by keyboard", async () => {
  await page.setViewportSize(wide);
  await page.goto(CONSOLE + "/devices");
  await page.getByRole("link", { name: "Activity", exact: true }).click();
  await page.getByRole("heading", { name: "Activity", exact: true }).waitFor();
  await look(page, "activity");
  await page.setViewportSize(wide);
  await page.selectOption("#a-what", "device.");
  await page.locator("#a-device").focus();
  await page.keyboard.type("nas");
  await page.keyboard.press("Enter");
  await page.waitForURL("**/activity?*device=nas*");
  const entry = page.locator(".acts > li").filter({ hasText: "Changed its DNS settings" }).first();
  await entry.locator("summary").focus();
  await page.keyboard.press("Enter");
  await entry.locator("ins").first().waitFor();
  await look(page, "activity-details");
  await page.setViewportSize(wide);
  const download = page.waitForEvent("download");
  await page.getByRole("link", { name: "Export" }).click();
  assert.match((await download).suggestedFilename(), /^weft-audit-.*\.ndjson$/);
  await page.getByRole("button", { name: "Verify the records" }).focus();
  await page.keyboard.press("Enter");
  await page.getByRole("status").filter({ hasText: "are as they were written" }).waitFor();
  await page.waitForFunction(() => location.pathname === "/activity"); // a reload would send the form again
  await look(page, "activity-verified");
  await page.setViewportSize(wide);
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
