// Drives the console in Chromium; started by browser_test.go with CONSOLE (the
// site), CONTROL (what devices and the command line would do), WEFT_CHROMIUM
// and, for screenshots, WEFT_SHOTS. The first failure ends it with status 1.
//
// The steps of a group build on one another, in this order; GROUP says which, and each has a
// network of its own. STEPS=people,dns runs only these, after the first two.
import { browser, taken } from "./lib.mjs";

const groups = {
  devices: ["first", "add", "approve", "live", "devices", "device", "tabs", "slow", "back", "paint", "many", "numbers"],
  pages: ["begin", "keys", "dns", "people", "network", "settings", "activity", "access", "frame", "keyboard", "account", "passkeys", "hostile", "plain", "ended"],
};
const only = process.env.STEPS?.split(",");
const steps = only ? ["first", "add", ...Object.values(groups).flat().filter((s) => only.includes(s) && s !== "first" && s !== "add")] : groups[process.env.GROUP];
for (const s of steps) await import(`./steps/${s}.mjs`);
taken();
await browser.close();
