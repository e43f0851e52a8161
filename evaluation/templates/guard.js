"use strict";
// Counts what goes wrong on this page, so that a test can ask; it runs before everything else.
(() => {
  const seen = [];
  const publish = () => {
    if (!document.body) return;
    document.body.dataset.errors = String(seen.length);
    document.body.dataset.errorText = seen.slice(0, 5).join(" | ").slice(0, 500);
  };
  const note = (text) => { seen.push(String(text)); publish(); };
  addEventListener("error", (event) => note(event.message || "resource error"), true);
  addEventListener("unhandledrejection", (event) => note(event.reason));
  addEventListener("securitypolicyviolation", (event) => note(`policy: ${event.violatedDirective} ${event.blockedURI}`));
  const original = console.error;
  console.error = (...parts) => { note(parts.join(" ")); original.apply(console, parts); };
  addEventListener("DOMContentLoaded", publish);
})();
