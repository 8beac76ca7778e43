// Holds what is checked at the door against what the node describes: every answer that it may give is one that the page reads. This file is types
// only; `tsc` fails where the two part.
import type { Answer, Catalogue, Health, ProblemBody } from "./answer";
import type { Cluster, DeadLetters, Retried } from "./operations";
import type { components } from "./schema.gen";

type Described = components["schemas"];
type Reads<Read, _Given extends Read> = true;

export type AllRead = [
  Reads<Answer, Described["Answer"]>,
  Reads<ProblemBody, Described["Problem"]>,
  Reads<Health, Described["Health"]>,
  Reads<Catalogue, Described["Catalogue"]>,
  Reads<Cluster, Described["Cluster"]>,
  Reads<DeadLetters, Described["DeadLetterPage"]>,
  Reads<Retried, Described["Retried"]>,
];
