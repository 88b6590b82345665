import { CONSOLE, NAMED, password, control, newPage, look, step, expect, run } from "../lib.mjs";

const { page } = run;

await step("passkeys", async () => {
  // Signing in with a link ends the session of the first page, whose stream then ends.
  expect(/401/);
  const named = await newPage({ ignoreHTTPSErrors: true });
  const cdp = await named.context().newCDPSession(named);
  await cdp.send("WebAuthn.enable");
  const { authenticatorId } = await cdp.send("WebAuthn.addVirtualAuthenticator", {
    options: { protocol: "ctap2", transport: "internal", hasResidentKey: true, hasUserVerification: true, isUserVerified: true, automaticPresenceSimulation: true },
  });
  await named.goto(NAMED + (await control("/link")));
  await named.fill("#password", password);
  await named.getByRole("button", { name: "Set password and sign in" }).click();
  await named.getByRole("heading", { name: "Devices" }).waitFor();
  await named.goto(NAMED + "/account");
  await look(named, "account-passkeys-none");
  await named.fill("#passkey-name", "<b>the laptop</b>");
  await named.getByRole("button", { name: "Add a passkey" }).click();
  await named.getByText("Passkey added").waitFor();
  await named.getByText("<b>the laptop</b>").waitFor();
  await look(named, "account-passkeys");
  // A second one on the same device is refused by the device.
  await named.getByRole("button", { name: "Add a passkey" }).click();
  await named.getByText("has a passkey for you here already").waitFor();
  // The live stream ends with the session too, and leads to a sign-in page of its own.
  const signOut = async () => {
    await named.locator("#main").getByRole("button", { name: "Sign out" }).click();
    await named.getByRole("heading", { name: "Sign in" }).waitFor();
    await named.waitForLoadState("networkidle");
    await named.goto(NAMED + "/sign-in");
  };
  await signOut();
  await look(named, "sign-in-passkey");
  const button = named.getByRole("button", { name: "Sign in with a passkey" });
  // By keyboard, without a name.
  await button.focus();
  await named.keyboard.press("Enter");
  await named.getByRole("heading", { name: "Devices" }).waitFor();
  // Somebody who is not verified does not get in.
  await named.goto(NAMED + "/account");
  await signOut();
  await cdp.send("WebAuthn.setUserVerified", { authenticatorId, isUserVerified: false });
  await button.click();
  await named.getByText("No passkey was used").waitFor();
  await cdp.send("WebAuthn.setUserVerified", { authenticatorId, isUserVerified: true });
  await button.click();
  await named.getByRole("heading", { name: "Devices" }).waitFor();
  // A copy that has counted less.
  const { credentials } = await cdp.send("WebAuthn.getCredentials", { authenticatorId });
  await cdp.send("WebAuthn.removeCredential", { authenticatorId, credentialId: credentials[0].credentialId });
  await cdp.send("WebAuthn.addCredential", { authenticatorId, credential: { ...credentials[0], signCount: 0 } });
  await named.goto(NAMED + "/account");
  await signOut();
  await button.click();
  await named.getByRole("heading", { name: "Devices" }).waitFor();
  await named.goto(NAMED + "/account");
  await named.getByText("Somebody may have a copy of").waitFor();
  await look(named, "account-passkey-copied");
  await named.getByRole("button", { name: "Remove" }).click();
  await named.getByText("Passkey removed").waitFor();
  await named.context().close();
  await page.goto(CONSOLE + "/account");
  await page.getByRole("heading", { name: "Sign in" }).waitFor();
  await page.fill("#name", "admin");
  await page.fill("#password", password);
  await page.getByRole("button", { name: "Sign in" }).click();
  await page.getByRole("heading", { name: "Account" }).waitFor();
  expect();
});
