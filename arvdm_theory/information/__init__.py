"""Information measures in nats: closed forms for Gaussian and finite laws, and proofs of inequalities."""
