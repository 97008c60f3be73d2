"""Policy packs: what a course or a team allows."""
