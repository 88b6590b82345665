// What a group of steps begins with that does not see the first device join: an owner who is
// signed in, and a small household.
import { CONSOLE, password, control, household, newPage, step, run } from "../lib.mjs";

await step("begin", async () => {
  const page = (run.page = await newPage());
  await page.goto(CONSOLE + (await control("/link")));
  await page.fill("#password", password);
  await page.getByRole("button", { name: "Set password" }).click();
  await page.getByRole("heading", { name: "Add your first device" }).waitFor();
  await household();
});
