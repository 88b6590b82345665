import assert from "node:assert/strict";
import { CONSOLE, newPage, step, run } from "../lib.mjs";

const { page } = run;

await step("reading works without JavaScript", async () => {
  const cookies = await page.context().cookies();
  const plain = await newPage({ javaScriptEnabled: false });
  await plain.context().addCookies(cookies);
  for (const [at, heading] of [["/devices", "Devices"], ["/devices?q=nas", "Devices"], ["/keys", "Keys"], ["/access", "Access"], ["/access?from=admin&to=nas:22", "Access"], ["/activity", "Activity"], ["/activity/introductions", "Introductions"], ["/dns", "DNS"], ["/dns?name=nas", "DNS"], ["/account", "Account"], ["/add/device", "Add a device"], ["/keys/new", "New key"]]) {
    await plain.goto(CONSOLE + at);
    assert.ok(await plain.getByRole("heading", { name: heading, exact: true }).isVisible(), at);
  }
  await plain.goto(CONSOLE + "/devices?q=nas");
  await plain.getByRole("link", { name: "nas" }).click();
  await plain.getByRole("heading", { name: "nas" }).waitFor();
  assert.equal(await plain.getByRole("button", { name: "Copy" }).count(), 0, "a button that cannot work is shown");
  await plain.getByRole("button", { name: "Measure" }).click();
  await plain.getByText(/^[0-9.]+ ms$/).waitFor();
  await plain.context().close();
});
