import assert from "node:assert/strict";
import { CONSOLE, password, wide, control, newPage, step, expect, run } from "../lib.mjs";

const { page } = run;
const live = (tab) => tab.locator("#live-state[data-state=on]").waitFor();

await step("two tabs agree: a name and a tag that are changed in one show in the other's list", async () => {
  await page.setViewportSize(wide);
  const id = await control("/add", { name: "tab-one" });
  await page.goto(`${CONSOLE}/devices/${id}/settings`);
  const list = await page.context().newPage();
  await list.goto(CONSOLE + "/devices?q=tab-");
  await live(list);
  await list.evaluate(() => (window.same = true));
  const row = list.locator(`#d-${id}`);
  await row.getByRole("link", { name: "tab-one", exact: true }).waitFor();
  await page.fill("#newname", "tab-two");
  await page.getByRole("button", { name: "Rename" }).click();
  await page.getByText("Renamed to tab-two.").waitFor();
  await row.getByRole("link", { name: "tab-two", exact: true }).waitFor();
  await page.fill("#newtags", "device shelf");
  await page.keyboard.press("Enter");
  await page.getByText("Its older certificates are revoked").waitFor();
  await row.getByText("shelf").waitFor();
  assert.ok(await list.evaluate(() => window.same), "the list was loaded again");
  await list.close();
});

await step("a list that was opened a day before is right", async () => {
  const id = await control("/add", { name: "monday" });
  for (const on of ["true", "false"]) await control("/presence", { name: "monday", on });
  const mine = await newPage({ storageState: await page.context().storageState() });
  await mine.clock.install();
  await mine.goto(CONSOLE + "/devices?q=monday");
  const seen = mine.locator(`#d-${id} .c-seen`);
  await seen.getByText(/now|ago/).waitFor();
  // A day passes for the server, and for the page, which hears nothing.
  await mine.evaluate(() => document.getElementById("live").remove());
  for (const on of ["true", "false"]) await control("/presence", { name: "monday", on, ago: "49h" });
  await mine.clock.fastForward("24:00:00");
  await seen.getByText("2 days ago").waitFor();
  await mine.context().close();
});

await step("signing in again goes on at once, though the page's own session ends by it", async () => {
  const mine = await newPage();
  const sign = async () => {
    await mine.fill("#password", password);
    await mine.getByRole("button", { name: "Sign in", exact: true }).click();
  };
  await mine.goto(CONSOLE + "/sign-in");
  await mine.fill("#name", "admin");
  await sign();
  await mine.waitForURL("**/devices");
  const other = await mine.context().newPage();
  await other.goto(CONSOLE + "/people");
  await live(other);
  await mine.goto(CONSOLE + "/sign-in/again?next=/account");
  await live(mine);
  // The answer is slow: by then the page has heard that its session is over.
  await mine.route("**/sign-in", async (route) => {
    const response = await route.fetch({ maxRedirects: 0 });
    await new Promise((r) => setTimeout(r, 1500));
    await route.fulfill({ response });
  });
  expect(/401/);
  await sign();
  await mine.waitForURL("**/account", { timeout: 15_000 });
  await other.getByRole("heading", { name: /People|Sign in/ }).waitFor();
  expect();
  await mine.context().close();
});
