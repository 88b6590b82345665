// Passkeys: a button with data-passkey asks the server what is to be signed, has the
// browser do it, and sends the answer with its form.
"use strict";

const bytes = (s) => Uint8Array.from(atob(s.replaceAll("-", "+").replaceAll("_", "/")), (c) => c.charCodeAt(0));
const text = (b) => btoa(String.fromCharCode(...new Uint8Array(b))).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");

async function ask(address) {
  const res = await fetch(address, { method: "POST", headers: { "Content-Type": "application/x-www-form-urlencoded", "HX-Request": "true" } });
  const to = res.headers.get("HX-Redirect");
  if (to) {
    location.assign(to);
    return null;
  }
  if (!res.ok) throw new Error("The server did not answer. Reload the page and try again.");
  const o = await res.json();
  o.challenge = bytes(o.challenge);
  if (o.user) o.user.id = bytes(o.user.id);
  for (const c of o.excludeCredentials ?? []) c.id = bytes(c.id);
  return o;
}

async function passkey(button) {
  const form = button.form;
  const problem = form.querySelector("[data-passkey-problem]");
  problem.hidden = true;
  button.disabled = true;
  try {
    const making = button.dataset.passkey === "create";
    const publicKey = await ask(button.dataset.options);
    if (!publicKey) return;
    const c = making ? await navigator.credentials.create({ publicKey }) : await navigator.credentials.get({ publicKey });
    const r = c.response;
    const answer = { clientDataJSON: text(r.clientDataJSON) };
    if (making) {
      answer.attestationObject = text(r.attestationObject);
      answer.transports = r.getTransports?.() ?? [];
    } else {
      answer.authenticatorData = text(r.authenticatorData);
      answer.signature = text(r.signature);
      answer.userHandle = r.userHandle ? text(r.userHandle) : "";
    }
    form.elements.response.value = JSON.stringify({ id: c.id, rawId: text(c.rawId), type: c.type, response: answer, clientExtensionResults: {} });
    form.submit();
  } catch (e) {
    problem.textContent = e.name === "NotAllowedError" ? "No passkey was used." : e.name === "InvalidStateError" ? "This device has a passkey for you here already." : e.message;
    problem.hidden = false;
  } finally {
    button.disabled = false;
  }
}

for (const b of document.querySelectorAll("button[data-passkey]")) {
  b.hidden = !window.PublicKeyCredential;
  b.addEventListener("click", () => passkey(b));
}
