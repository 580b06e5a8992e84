"""Why a network says what it says: Grad-CAM on patches and on slides."""
