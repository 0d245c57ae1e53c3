// Who one is. Verdicts that are not sent stay in the browser meanwhile.

import { ApiError, post } from "./api.js";
import { element, field } from "./elements.js";
import { t } from "./texts.js";

export function signInForm(to) {
  const name = element("input", { name: "name", autocomplete: "username", required: true, autofocus: true, maxLength: 100 });
  const password = element("input", { name: "password", type: "password", autocomplete: "current-password", required: true });
  const message = element("p.message", { role: "alert" });
  const submit = element("button.main", { type: "submit" }, t("sign-in"));
  const form = element("form.card", {
    async onsubmit(event) {
      event.preventDefault();
      submit.disabled = true;
      try {
        await post("/api/session", { name: name.value, password: password.value });
        location.replace(safe(to));
      } catch (error) {
        message.textContent = explain(error);
        submit.disabled = false;
        password.select();
      }
    },
  }, element("p.brand", {}, "facemill"), element("h1", {}, t("sign-in")), field(t("name"), name), field(t("password"), password),
  submit, message, element("p.hint", {}, t("kept-here")));
  return element("main.sign-in", {}, form);
}

function explain(error) {
  if (!(error instanceof ApiError)) return t("offline");
  if (error.status === 429) return t("sign-in-wait", { n: error.retryAfter });
  if (error.status === 401) return t("sign-in-failed");
  return [404, 405].includes(error.status) ? t("sign-in-proxy") : t("error", { message: error.message });
}

// A path of this page, and nothing else.
function safe(to) {
  const url = new URL(to ?? "/", location.origin);
  return url.origin === location.origin && url.pathname !== "/sign-in" ? url.pathname + url.search : "/";
}
