import * as z from "zod";

// Before the first schema is made, and so the first import of the daemon's parts. A schema would else have a program written and compiled for
// it the first time it is used: most are used once, and their code would stay.
z.config({ jitless: true });
