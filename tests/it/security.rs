//! Secrets, confinement and least privilege (I9; A13, F1, F2, G1, G2, G4, P6).
