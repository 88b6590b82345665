import assert from "node:assert/strict";
import { CONSOLE, household, newPage, step, run } from "../lib.mjs";

const { page } = run;

await step("reading works without JavaScript", async () => {
  await household();
  const cookies = await page.context().cookies();
  const plain = await newPage({ javaScriptEnabled: false });
  await plain.context().addCookies(cookies);
  for (const [at, heading] of [["/devices", "Devices"], ["/devices?q=nas", "Devices"], ["/keys", "Keys"], ["/network", "Network"], ["/network/dns/routes", "Resolvers"], ["/network/dns/try?name=nas", "Try a name"], ["/settings", "This network"], ["/settings/sign-in", "Sign-in"], ["/settings/sign-in/new", "Add a provider"], ["/settings/webhooks", "Webhooks"], ["/settings/webhooks/new", "New webhook"], ["/settings/tokens", "API tokens"], ["/settings/tokens/new", "New token"], ["/settings/releases", "Releases"], ["/access", "Access"], ["/access?from=admin&to=nas:22", "Access"], ["/activity", "Activity"], ["/activity/introductions", "Activity"], ["/dns", "DNS names"], ["/dns?name=nas", "Try a name"], ["/account", "Account"], ["/add/device", "Add a device"], ["/network/keys/new", "New key"]]) {
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
