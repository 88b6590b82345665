import assert from "node:assert/strict";
import { CONSOLE, password, control, newPage, look, step, expect, run } from "../lib.mjs";

await step("first sign-in by one-time link", async () => {
  const page = (run.page = await newPage());
  expect(/401|422/);
  await page.goto(CONSOLE + "/");
  await page.getByRole("heading", { name: "Sign in" }).waitFor();
  await look(page, "signin");
  await page.goto(CONSOLE + (await control("/link")));
  await look(page, "welcome");
  assert.equal(await page.inputValue("#name"), "admin");
  await page.fill("#password", "password");
  await page.evaluate(() => document.querySelector("#password").removeAttribute("minlength"));
  await page.getByRole("button", { name: "Set password" }).click();
  await page.getByRole("alert").waitFor();
  await page.fill("#password", password);
  await page.getByRole("button", { name: "Show" }).click();
  assert.equal(await page.getAttribute("#password", "type"), "text");
  await page.getByRole("button", { name: "Set password" }).click();
  await page.getByRole("heading", { name: "Add your first device" }).waitFor();
  await page.locator("#live-state[data-state=on]").waitFor();
  await look(page, "empty");
  expect();
});
