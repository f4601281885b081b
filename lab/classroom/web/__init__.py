"""The pages of a class: for the projector, for phones, the teacher's. Starlette and uvicorn; nothing is fetched."""
