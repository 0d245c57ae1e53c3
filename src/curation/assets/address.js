// The address of what is shown: the view in the path, filter and order in the query string.

export const VIEWS = { "/": "single", "/grid": "grid", "/border": "border", "/statistics": "statistics", "/sign-in": "sign-in" };
export const UNJUDGED = "status in (ready, predicted)";
const FIRST_SORT = "-p_ok";

export function read(location = window.location) {
  const query = new URLSearchParams(location.search);
  const face = /^\/faces\/(.+)$/.exec(location.pathname);
  return {
    view: face ? "face" : VIEWS[location.pathname] ?? null,
    photo: face ? decodeURIComponent(face[1]) : null,
    where: query.get("where") ?? UNJUDGED,
    sort: query.get("sort") ?? FIRST_SORT,
    at: query.has("at") ? Number(query.get("at")) - 1 : null,
    to: query.get("to"),
  };
}

// The path of a view with filter and order. What is usual is left out.
export function path(view, { where = UNJUDGED, sort = FIRST_SORT, at = null } = {}) {
  const place = Object.keys(VIEWS).find((name) => VIEWS[name] === view) ?? "/";
  const query = new URLSearchParams();
  if (where !== UNJUDGED) query.set("where", where);
  if (sort !== FIRST_SORT) query.set("sort", sort);
  if (at > 0) query.set("at", at + 1);
  const text = query.toString();
  return text ? `${place}?${text}` : place;
}

export const facePath = (photo) => `/faces/${encodeURIComponent(photo)}`;

export function go(target) {
  flush();
  history.pushState(null, "", target);
  dispatchEvent(new Event("moved"));
}

// Notes the place in the list, without a step in the history. Browsers allow few of these a second.
let later = null;
export function note(view, state) {
  clearTimeout(later?.timer);
  later = { view, state, timer: setTimeout(flush, 400) };
}

function flush() {
  clearTimeout(later?.timer);
  if (later && read().view === later.view) history.replaceState(null, "", path(later.view, later.state));
  later = null;
}

addEventListener("popstate", () => {
  clearTimeout(later?.timer);
  later = null;
});

// Links of the page move within it.
addEventListener("click", (event) => {
  const anchor = event.target instanceof Element ? event.target.closest("a[href]") : null;
  if (!anchor || event.button !== 0 || event.ctrlKey || event.metaKey || event.shiftKey || event.altKey || anchor.target) return;
  if (anchor.origin !== window.location.origin || !read(anchor).view) return;
  event.preventDefault();
  go(anchor.pathname + anchor.search);
});
