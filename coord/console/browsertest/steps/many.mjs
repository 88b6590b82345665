import assert from "node:assert/strict";
import { CONSOLE, wide, control, look, step, run } from "../lib.mjs";

const { page } = run;

await step("5,000 devices", async () => {
  await control("/many");
  await page.setViewportSize(wide);
  const start = Date.now();
  await page.goto(CONSOLE + "/devices?q=unit");
  await page.getByText("1–50 of 5,000 devices").waitFor();
  assert.ok(Date.now() - start < 3000, "the list took 3 s");
  await look(page, "many");
  await page.getByRole("link", { name: "Next" }).click();
  await page.getByText("51–100 of 5,000 devices").waitFor();
});
