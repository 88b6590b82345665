import assert from "node:assert/strict";
import { CONSOLE, wide, look, step, run } from "../lib.mjs";

const { page } = run;

await step("keys", async () => {
  await page.setViewportSize(wide);
  await page.goto(CONSOLE + "/network/keys/new");
  await page.getByRole("heading", { name: "New key", exact: true }).waitFor();
  await look(page, "newkey");
  await page.fill("#note", "Golden image, batch 7");
  await page.fill("#tags", "sensor, north-field");
  await page.getByLabel("Reusable").check();
  await page.getByRole("button", { name: "Make the key" }).click();
  await page.getByText("Other ways").click();
  await page.getByText("weft run --token-file").waitFor();
  await look(page, "join-reusable");
  await page.setViewportSize(wide);
  await page.goto(CONSOLE + "/network/keys");
  await page.getByRole("link", { name: "Golden image" }).waitFor();
  await page.locator("tr", { hasText: "Golden image" }).locator("summary").click();
  await look(page, "keys");
  await page.keyboard.press("Escape");
  assert.equal(await page.locator("details.confirm[open]").count(), 0);
  await page.setViewportSize(wide);
  await page.locator("tr", { hasText: "Golden image" }).locator("summary").click();
  await page.getByRole("button", { name: "Revoke this key" }).click();
  await page.getByText("Key revoked.").waitFor();
  await page.getByText("used, expired or revoked").click();
  await look(page, "keys-past");
});
