// A desk is what a tab continues after it was closed: its client id, its lists and its undo stack. Each open tab has a desk
// of its own, which a Web Lock guards.

import { post, randomHex } from "./api.js";
import { hold } from "./locks.js";

const MOST = 50;
// Time for a tab that was just closed to give its desk free, in milliseconds.
const PATIENCE = 400;
const RENEW = 20_000;

export class Desk {
  static async take(store) {
    const preferred = Number(sessionStorage.getItem("desk")) || 1;
    const numbers = [preferred, ...Array.from({ length: MOST }, (_, index) => index + 1)];
    for (const [index, number] of numbers.entries()) {
      const name = `${store.name}/desk/${number}`;
      if (!(await hold(name, index === 0 ? PATIENCE : 0))) continue;
      sessionStorage.setItem("desk", number);
      const known = await store.get("desks", number);
      const client = known?.client ?? randomHex(8);
      if (!known) await store.write(["desks"], ({ desks }) => desks.put({ desk: number, client }));
      return new Desk(number, client);
    }
    throw new Error("too many tabs are open");
  }

  constructor(number, client) {
    this.number = number;
    this.client = client;
    // The server gives this tab's pictures to others when the tab is closed, or silent for a minute.
    addEventListener("pagehide", () => navigator.sendBeacon(`/api/clients/${client}/closed`));
    addEventListener("pageshow", (event) => event.persisted && location.reload());
    setInterval(() => post(`/api/clients/${client}/alive`).catch(() => {}), RENEW);
  }
}
