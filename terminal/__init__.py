"""What `lab`'s commands and devcloud share to show themselves on a terminal."""
