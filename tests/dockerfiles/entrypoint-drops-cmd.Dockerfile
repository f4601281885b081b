#: The base's CMD was for the base's ENTRYPOINT.
FROM corpus AS base
CMD ["base"]
FROM base
ENTRYPOINT ["mine"]
