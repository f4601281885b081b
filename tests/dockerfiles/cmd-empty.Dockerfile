#: An empty list takes the base's CMD away.
FROM corpus AS base
CMD ["base"]
FROM base
CMD []
