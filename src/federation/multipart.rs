//! Reading the two parts of a federation answer (FLD-01 to FLD-07).
