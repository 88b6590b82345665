import assert from "node:assert/strict";
import { CONSOLE, wide, control, look, step, expect, run } from "../lib.mjs";

const { page } = run;

await step("device page: rename, test, replace, delete with the name typed", async () => {
  await page.setViewportSize(wide);
  await page.goto(CONSOLE + "/devices");
  await page.getByRole("link", { name: "kitchen-pi", exact: true }).click();
  await page.getByRole("button", { name: "Test the connection" }).click();
  await page.locator(".path").getByText(/^[0-9.]+ ms$/).waitFor();
  await look(page, "device");
  await page.setViewportSize(wide);
  await page.fill("#newname", "larder-pi");
  await page.getByRole("button", { name: "Rename" }).click();
  await page.getByRole("heading", { name: "larder-pi" }).waitFor();
  await page.getByText("Renamed.").waitFor();
  expect(/422/);
  await page.fill("#newname", "no spaces here");
  await page.getByRole("button", { name: "Rename" }).click();
  await page.getByText("A name has").waitFor();
  await page.waitForFunction(() => !location.pathname.endsWith("/rename")); // a reload would send the form again
  expect();

  const fresh = await control("/add", { name: "larder-pi" });
  await page.goto(CONSOLE + "/devices/" + fresh);
  await page.getByText("Replace another device by this one").click();
  assert.equal(await page.inputValue("#old"), "larder-pi"); // the one that it was named after
  await look(page, "replacing");
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

  await page.getByText("Delete this device").click();
  const button = page.getByRole("button", { name: "Delete" });
  assert.ok(await button.isDisabled());
  await page.fill("#typed", "kitchen-pi");
  assert.ok(await button.isDisabled());
  await page.fill("#typed", "larder-pi");
  await look(page, "delete");
  expect(/404/); // the page may hear of it before it is left
  await button.click();
  await page.waitForURL("**/devices?done=deleted");
  expect();
  assert.equal(await page.getByRole("link", { name: "larder-pi" }).count(), 0);
});
