"""A deployment engine that speaks Pulumi's protocols, with the semantics and the state format of the Pulumi CLI."""
