"""The screens: what an engineer with a phone sees. Gradio shows them; what is shown is worked out in files without it."""
