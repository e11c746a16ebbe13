import { memoryStore } from "../stores/memory.ts";
import { openWithClock, storeConformance } from "./conformance/store.ts";

storeConformance("memoryStore", {
  ordered: true,
  open: () => openWithClock((now) => memoryStore({ now })),
});
