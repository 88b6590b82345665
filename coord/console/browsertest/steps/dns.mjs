import assert from "node:assert/strict";
import { CONSOLE, wide, look, step, expect, run } from "../lib.mjs";

const { page } = run;

await step("DNS: records, routes, a live preview", async () => {
  await page.setViewportSize(wide);
  await page.goto(CONSOLE + "/devices");
  await page.getByRole("link", { name: "Network", exact: true }).click();
  await page.getByRole("heading", { name: "DNS", exact: true }).waitFor();
  await look(page, "dns-empty");
  await page.setViewportSize(wide);
  // By keyboard: the summary opens, the fields follow each other.
  await page.getByText("Add a record").focus();
  await page.keyboard.press("Enter");
  await page.locator("#r-name").focus();
  await page.keyboard.type("www");
  await page.keyboard.press("Tab");
  await page.keyboard.press("Tab");
  await page.keyboard.type("192.0.2.80");
  await page.keyboard.press("Enter");
  await page.getByText("Devices fetch it within seconds").waitFor();
  await page.getByRole("cell", { name: "www.weft.internal", exact: true }).waitFor();
  expect(/422/);
  await page.getByText("Add a record").click();
  await page.fill("#r-name", "www.example.org");
  await page.fill("#r-value", "192.0.2.9");
  await page.getByRole("button", { name: "Add the record" }).click();
  await page.getByRole("alert").filter({ hasText: "is not in weft.internal" }).waitFor();
  assert.equal(await page.inputValue("#r-value"), "192.0.2.9");
  await look(page, "dns-problem");
  await page.setViewportSize(wide);
  expect();
  await page.getByText("and that is meant").click();
  await page.getByRole("button", { name: "Add the record" }).click();
  await page.getByRole("cell", { name: "www.example.org", exact: true }).waitFor();
  await page.fill("#suffix", "corp.example");
  await page.fill("#route-servers", "10.0.0.53\ntls://dns.example 192.0.2.3");
  await page.getByRole("button", { name: "Add the route" }).click();
  await page.getByText("tls://dns.example 192.0.2.3").waitFor();
  await page.fill("#servers", "https://dns.example/dns-query 192.0.2.3");
  await page.getByRole("button", { name: "Set nameservers" }).click();
  await page.getByText("Devices fetch it within seconds").waitFor();
  await page.getByText("Stop rebinding").click();
  await page.getByRole("button", { name: "Set options" }).click();
  await page.getByText("Devices fetch it within seconds").waitFor();
  assert.ok(await page.locator("input[name=stop-rebinding]").isChecked());
  // The preview answers while it is typed.
  await page.locator("#p-name").pressSequentially("nas");
  await page.locator("#preview").getByText("is a device").waitFor();
  await page.fill("#p-name", "nobody-here");
  await page.locator("#preview").getByText("There is no such name").waitFor();
  await page.fill("#p-name", "www");
  await page.locator("#preview").getByText("192.0.2.80").waitFor();
  await look(page, "dns");
  await page.setViewportSize(wide);
  await page.getByRole("button", { name: "Remove www.example.org A" }).click();
  await page.getByText("Devices fetch it within seconds").waitFor();
  assert.equal(await page.getByRole("cell", { name: "www.example.org", exact: true }).count(), 0);
  // One device.
  await page.goto(CONSOLE + "/devices?q=nas");
  await page.getByRole("link", { name: "nas" }).click();
  await page.getByText("Answer for every name below its own").click();
  await page.selectOption("#lan-names", "on");
  await page.getByRole("button", { name: "Set", exact: true }).click();
  await page.getByText("Devices fetch it within seconds").waitFor();
  await look(page, "device-names");
});
