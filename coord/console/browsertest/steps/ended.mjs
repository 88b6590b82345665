import { CONSOLE, password, wide, control, look, step, expect, run } from "../lib.mjs";

const { page } = run;

await step("an ended session and a missing page", async () => {
  await page.setViewportSize(wide);
  expect(/40[14]/);
  await page.goto(CONSOLE + "/no/such/page");
  await page.getByRole("heading", { name: "Nothing here" }).waitFor();
  await look(page, "error");
  await page.goto(CONSOLE + "/network/keys");
  await page.locator("#live-state[data-state=on]").waitFor();
  await control("/drop-sessions");
  await page.getByRole("heading", { name: "Sign in" }).waitFor();
  await page.fill("#name", "admin");
  await page.fill("#password", password);
  await page.getByRole("button", { name: "Sign in" }).click();
  await page.waitForURL("**/network/keys"); // back where it was
  expect();
});
