"""What is claimed of auto-regressive video diffusion, and what is so: a verdict a claim, with its numbers.

A verdict is on the formal statement that is printed, in the regime that is stated (Gaussian laws, exact or erring
score; closed forms, but for claims on networks); it does not say what an author meant. A source that was not read
is named as such, and its claim is given as reported.
"""
